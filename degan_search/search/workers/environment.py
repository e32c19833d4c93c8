"""What Ray brings to the processes that run trials: this project, the user's own networks, credentials."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from degan_search.networks import of_code, of_onnx, table
from degan_search.system import trust
from degan_search.system.errors import UserError


@contextmanager
def environment(networks: Iterable[str], cluster: bool) -> Iterator[dict[str, Any]]:
    """Give the runtime environment for `ray.init`, which takes what it names within this context.

    Of the user's code that is each file, or its package's folder, of the networks named; a library that is installed
    is left to each machine. ONNX files go with the files beside them that hold their weights. To the machines of a
    cluster also go this project's package (they may have no copy, or another version; torch and the other libraries
    must be installed there) and credentials for an object store.

    Raises:
        UserError: the code is not there, or two of its files would have one name.
    """
    with tempfile.TemporaryDirectory(prefix="degan-search-") as folder:
        sent = _code(networks)
        if (files := _onnx_files(networks, Path(folder) / of_onnx.BROUGHT)) is not None:
            sent.append(files)
        made: dict[str, Any] = {}
        if cluster:
            sent.insert(0, Path(__file__).parents[2])
            made["env_vars"] = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        if sent:
            made["py_modules"] = [str(path) for path in sent]
            made.setdefault("env_vars", {})[trust.TRUSTED] = "1"  # what workers are given was checked here
        yield made


def _code(networks: Iterable[str]) -> list[Path]:
    """Return the files and packages of the user's code."""
    by_name: dict[str, Path] = {}
    for text in sorted(networks):
        kind, named = table.kind_of(text)
        if kind.build is not of_code.build:
            continue
        if (path := of_code.source(named)) is not None:
            _add(by_name, path.stem, path.resolve(), text)
    return list(by_name.values())


def _onnx_files(networks: Iterable[str], folder: Path) -> Path | None:
    """Gather ONNX files in one folder; None if there are none."""
    by_name: dict[str, Path] = {}
    for text in sorted(networks):
        kind, named = table.kind_of(text)
        if kind.build is of_onnx.build:
            for path in of_onnx.files(named):
                _add(by_name, path.name, path.resolve(), text)
    for name, path in by_name.items():
        folder.mkdir(exist_ok=True)
        try:
            shutil.copyfile(path, folder / name)
        except OSError as error:
            raise UserError(f"{str(path)!r} cannot be sent to workers: {error.strerror or error}") from None
    return folder if by_name else None


def _add(by_name: dict[str, Path], name: str, path: Path, text: str) -> None:
    if (other := by_name.setdefault(name, path)) != path:
        raise UserError(f"network {text!r}: workers also get {str(other)!r} by the name {name!r}; rename one of them")
