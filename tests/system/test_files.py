"""Atomic writes, and tensors as bytes."""

import os

import pytest
import torch

from degan_search.system.errors import UserError
from degan_search.system.weights_file import read_tensors, tensors_bytes
from degan_search.system.whole_files import write_bytes


def test_tensors_come_back_and_a_cut_file_is_refused():
    strided = torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2)
    tensors = {"a": strided, "b": torch.zeros(3, dtype=torch.uint8)}
    data = tensors_bytes(tensors)
    back = read_tensors(data, "it")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert back["b"].dtype == torch.uint8
    for broken in (data[:-5], data[:4], b"", b"not safetensors at all"):
        with pytest.raises(UserError, match="the file is not a whole safetensors file"):
            read_tensors(broken, "the file")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "new" / "file"
    write_bytes(file, b"old")
    write_bytes(file, b"newer")
    assert file.read_bytes() == b"newer"

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_bytes(file, b"newest")
    assert file.read_bytes() == b"newer"
    assert [path.name for path in file.parent.iterdir()] == ["file"]
