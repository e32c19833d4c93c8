"""Seed streams, global generators left as they were, and files that are whole or not there."""

import multiprocessing
import os
import threading
from contextlib import contextmanager

import pytest
import torch

from degan_search.system import cpus as cpuss
from degan_search.system import device, provenance
from degan_search.system import seeds as seedss
from degan_search.system.errors import UserError
from degan_search.system.weights_file import read_tensors, tensors_bytes
from degan_search.system.whole_files import write_bytes


def test_streams_have_known_seeds():
    assert seedss.stream_seed(0, "gan", "noise") == 613162841112600663
    assert seedss.stream_seed(7) == 4359823973405836615


def test_streams_of_other_names_are_independent():
    names = [(), ("gan",), ("gan", "noise"), ("noise", "gan"), ("gan", "images"), ("gan", 1), ("gan", 11)]
    seeds = [seedss.stream_seed(seed, *name) for seed in range(20) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    one = torch.randn(4000, generator=seedss.generator(0, "gan", "noise"))
    for other in ((0, "gan", "images"), (1, "gan", "noise")):
        drawn = torch.randn(4000, generator=seedss.generator(*other))
        assert abs(torch.corrcoef(torch.stack([one, drawn]))[0, 1]) < 0.08  # five standard errors
    assert torch.equal(one, torch.randn(4000, generator=seedss.generator(0, "gan", "noise")))


def test_seeded_follows_its_stream_and_restores_the_global_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with seedss.seeded(3, "weights"):
        first = torch.rand(4)
        with seedss.seeded(3, "other"):
            inner = torch.rand(4)
        second = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    with seedss.seeded(3, "weights"):
        assert torch.equal(torch.rand(8), torch.cat([first, second]))
    assert not torch.equal(first, inner)
    with pytest.raises(ValueError, match="inside"), seedss.seeded(3):
        torch.rand(1)
        raise ValueError("inside")
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_gpu_is_used_that_was_not_assigned():
    assert device.choose_device(0) == "cpu"
    assert device.choose_device() == device.choose_device(1) == ("cuda" if torch.cuda.is_available() else "cpu")


def test_set_up_flushes_denormals_and_sets_threads():
    tiny = torch.tensor([1e-40])
    assert (tiny * 0.5).item() > 0
    device.set_up_torch(1)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    if torch.set_flush_denormal(True):  # False on a processor without it
        assert (tiny * 0.5).item() == 0


def test_provenance_names_versions_and_hardware():
    about = provenance.provenance()
    assert torch.__version__.startswith(about["versions"]["torch"])
    assert {"python", "numpy"} < set(about["versions"])
    assert about["host"]
    assert f"{os.cpu_count()} CPUs" in about["hardware"]


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


def test_precision_is_what_the_device_multiplies():
    assert [device.precision_of(asked, "cpu") for asked in ("float32", "tf32", "bf16")] == [
        "float32",
        "float32",
        "bf16",
    ]
    assert [device.precision_of(asked, "cuda") for asked in ("float32", "tf32", "bf16")] == ["float32", "tf32", "bf16"]
    native = {"avx512_bf16", "amx_bf16"} & {name for name, there in torch.cpu.get_capabilities().items() if there}
    assert device.precision_of("auto", "cpu") == ("bf16" if native else "float32")


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_arithmetic_rounds_products_alone_and_puts_settings_back(precision):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    weight = torch.nn.Parameter(torch.full((1, 1), 1 / 3))
    with device.arithmetic(precision, "cpu"):
        product = torch.ones(1, 1) @ weight
        inside = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
    assert weight.dtype == torch.float32
    if precision == "bf16":
        assert product.dtype == torch.bfloat16
        assert product.item() != weight.item()
    else:
        assert torch.equal(product, weight.data)
        assert inside == ((True, True) if precision == "tf32" else before)


def test_a_weight_that_changes_inside_bf16_arithmetic_is_cast_anew():
    weight = torch.nn.Parameter(torch.ones(1, 1))
    with device.arithmetic("bf16", "cpu"):
        first = torch.ones(1, 1) @ weight
        with torch.no_grad():
            weight.fill_(3)
        assert (torch.ones(1, 1) @ weight).item() == 3 * first.item()


# CPUs of a process's own, in real processes

FORK = multiprocessing.get_context("fork")
needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")


@pytest.fixture
def cpus(monkeypatch):
    """Two CPUs at most, under names that no sweep on this machine uses."""
    monkeypatch.setattr(cpuss, "CPU_NAME", f"degan-search/test/{os.getpid()}")
    before = os.sched_getaffinity(0)
    some = set(sorted(before)[:2])
    os.sched_setaffinity(0, some)
    yield some
    os.sched_setaffinity(0, before)


@contextmanager
def pinned(threads):
    """A process that has pinned itself: itself, whether it could, and its and its new thread's CPUs."""

    def work(answers):
        could = cpuss.pin(threads)
        seen = [os.sched_getaffinity(0)]
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
        answers.send((could, cpuss.pin(threads), *seen))
        answers.recv()  # until it is killed

    here, there = FORK.Pipe()
    process = FORK.Process(target=work, args=(there,))
    process.start()
    try:
        yield process, here.recv()
    finally:
        process.kill()
        process.join()


@needs_affinity
def test_each_process_has_cpus_of_its_own_and_one_too_many_keeps_all(cpus):
    with pinned(1) as (_, first), pinned(len(cpus)) as (_, all_of_them), pinned(1) as (_, second):
        (own,) = first[2]
        assert first == (True, True, {own}, {own})
        assert own in cpus
        assert all_of_them == (False, False, cpus, cpus)  # one of them is taken
        if len(cpus) == 2:  # what it had tried is free again
            assert second == (True, True, cpus - {own}, cpus - {own})
            with pinned(1) as (_, third):
                assert third == (False, False, cpus, cpus)


@needs_affinity
def test_a_killed_process_gives_its_cpus_back(cpus):
    with pinned(len(cpus)) as (process, first):
        assert first == (True, True, cpus, cpus)
        process.kill()
        process.join()
        with pinned(1) as (_, second):
            assert second[0]
            assert len(second[2]) == 1


@needs_affinity
def test_more_threads_than_cpus_are_not_pinned(cpus):
    with pinned(len(cpus) + 1) as (_, only):
        assert only == (False, False, cpus, cpus)


def test_a_system_without_affinity_pins_nothing(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert not cpuss.pin(1)
