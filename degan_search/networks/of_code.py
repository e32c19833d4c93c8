"""Networks of the user's own code: `FILE.py:FUNCTION`, or `package.module:FUNCTION`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from degan_search.networks.image_input import ImageInput, of_config, of_size, signed
from degan_search.networks.names import Named, Wanted, forbid, one_line
from degan_search.system import trust
from degan_search.system.errors import UserError, close_matches

_FILES: dict[Path, ModuleType] = {}
"""What was imported of the user's files in this process."""


def build(name: Named, wanted: Wanted) -> nn.Module:
    """Call the user's function: `FUNCTION(classes)`, with `channels` and `size` if it has parameters of these names.

    Raises:
        UserError: the code is not there, fails, or returns no network; names the file and line.
    """
    forbid(name, "classes")
    function = _function(name)
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    told = {"channels": wanted.channels, "size": wanted.size}
    options = {key: value for key, value in told.items() if key in parameters} | name.options
    with _told(name):
        network = function(wanted.classes, **options)
    if not isinstance(network, nn.Module):
        raise UserError(f"network {name.text!r} returned a {type(network).__name__}; it must return an nn.Module")
    return network.train()


def image_input(name: Named) -> ImageInput:
    """Return what the function or its module says in `input_size` or timm's `default_cfg`; else 32x32, 3, [-1, 1].

    Raises:
        UserError: the code is not there, or says no size.
    """
    function = _function(name)
    for place in (function, sys.modules.get(str(getattr(function, "__module__", None)))):
        config = getattr(place, "default_cfg", None)
        if config is not None:
            return of_config(dict(config) if isinstance(config, dict) else config.to_dict(), name.text)
        size = getattr(place, "input_size", None)
        if size is not None:
            return signed(*of_size(size, name.text))
    return ImageInput()


def vouch(name: Named) -> None:
    """Let the code run: the user's own settings have named it."""
    trust.vouch(_code(name))


def _code(name: Named) -> bytes:
    """Return what is vouched for: a file's content and the function, or the name of what Python itself finds."""
    where, _, own = name.what.rpartition(":")
    try:
        content = Path(where).expanduser().read_bytes() if where.endswith(".py") else where.encode()
    except (OSError, RuntimeError, ValueError):  # not there, which is said when it is imported
        content = b""
    return content + b"\0" + own.encode(errors="surrogateescape")


def source(name: Named) -> Path | None:
    """Return the file or the package's folder that a worker needs to import this code; None if it is installed.

    Raises:
        UserError: the code is not there.
    """
    where, _, _ = name.what.rpartition(":")
    if where.endswith(".py"):
        file = Path(where).expanduser().absolute()
        if not file.is_file():
            raise UserError(f"network {name.text!r}: there is no file {str(file)!r}")
        top, dotted = _package(file)
        spec = importlib.util.find_spec(dotted) if top is None and dotted.isidentifier() else None
        if spec and spec.origin and (spec.origin in ("built-in", "frozen") or _installed(Path(spec.origin))):
            raise UserError(f"network {name.text!r}: another module is called {dotted!r}; give the file another name")
        return top or file
    with _told(name):
        found = _module(where.partition(".")[0], name)
    if found.__file__ is None and not getattr(found, "__path__", None):
        return None  # built in
    place = Path(found.__file__) if found.__file__ else Path(next(iter(found.__path__))) / "__init__.py"
    if any(part in ("site-packages", "dist-packages") for part in place.parts) or _is_standard(place):
        return None
    return place.parent if hasattr(found, "__path__") else place


def _is_standard(place: Path) -> bool:
    return place.is_relative_to(Path(os.__file__).parent)


def _function(name: Named) -> Callable[..., Any]:
    where, _, own = name.what.rpartition(":")
    if not where or not all(part.isidentifier() for part in own.split(".")):
        raise UserError(f"network {name.text!r} must be FILE.py:FUNCTION or package.module:FUNCTION")
    if not trust.vouched(_code(name)):
        raise UserError(
            f"network {name.text!r} is code that was named by a run, not by you: set {trust.TRUSTED}=1 if you know who "
            "wrote it"
        )
    with _told(name):
        found: Any = _file(Path(where), name) if where.endswith(".py") else _module(where, name)
    for part in own.split("."):
        if not hasattr(found, part):
            known = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            raise UserError(f"network {name.text!r}: {where} has no {own!r}; {close_matches(own, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"network {name.text!r}: {own} is no function")
    return found  # type: ignore[no-any-return]


def _module(where: str, name: Named) -> ModuleType:
    """Import a module by its name; one that lies in the folder of the call is found too, as Python itself does."""
    if not all(part.isidentifier() for part in where.split(".")):
        raise UserError(f"network {name.text!r} must be FILE.py:FUNCTION or package.module:FUNCTION")
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.append(here)
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name and (where == error.name or where.startswith(f"{error.name}.")):
            raise UserError(f"network {name.text!r}: there is no module {error.name!r}") from None
        raise
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _file(path: Path, name: Named) -> ModuleType:
    """Import a file under its stem, or under its package's name; where it is not there, the one that Ray brought."""
    given = path.expanduser().absolute()
    path = given.resolve()
    if path in _FILES:
        return _FILES[path]
    if not path.is_file():
        return _brought(given, name)
    top, dotted = _package(path)
    loaded = sys.modules.get(dotted)
    if loaded is not None and _is(loaded, path):
        _FILES[path] = loaded
        return loaded
    if loaded is not None or (top is None and _elsewhere(dotted, path)):
        # Another module has this name: this one gets a name of its own.
        dotted, top = f"{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}", None
    if top is not None:
        sys.path.insert(0, str(top.parent))
        try:
            module = importlib.import_module(dotted)
        finally:
            sys.path.remove(str(top.parent))
        if not _is(module, path):
            raise UserError(f"network {name.text!r}: another package of its name is imported, {module.__file__}")
    else:
        module = _run(dotted, path)
    _FILES[path] = module
    return module


def _run(dotted: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(dotted, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[dotted] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[dotted]
        raise
    return module


def _brought(path: Path, name: Named) -> ModuleType:
    """Import the file that Ray's runtime environment has put on sys.path, by the longest end of its path."""
    parts = [*path.parts[1:-1], path.stem]
    for start in range(len(parts)):
        dotted = ".".join(parts[start:])
        if not all(part.isidentifier() for part in parts[start:]):
            continue
        try:
            spec = importlib.util.find_spec(dotted)
        except (ImportError, ValueError, AttributeError):
            continue
        if spec and spec.origin and Path(spec.origin).name == path.name and not _installed(Path(spec.origin)):
            return importlib.import_module(dotted)
    raise UserError(f"network {name.text!r}: there is no file {str(path)!r}")


def _installed(origin: Path) -> bool:
    return "site-packages" in origin.parts or _is_standard(origin)


def _package(file: Path) -> tuple[Path | None, str]:
    """Return the folder of the top package in which a file lies, if any, and the name to import the file by."""
    names, folder, top = ([] if file.stem == "__init__" else [file.stem]), file.parent, None
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        names.insert(0, folder.name)
        top, folder = folder, folder.parent
    return top, ".".join(names)


def _is(module: ModuleType, path: Path) -> bool:
    return _same(module.__dict__.get("__file__"), path)


def _same(origin: str | None, path: Path) -> bool:
    """Return whether a module's file is this one, or the copy of it that Ray brought."""
    if not origin:
        return False
    file = Path(origin).resolve()
    return file == path or (file.name == path.name and file.is_file() and file.read_bytes() == path.read_bytes())


def _elsewhere(dotted: str, path: Path) -> bool:
    """Return whether `import NAME` would give another module."""
    try:
        spec = importlib.util.find_spec(dotted)
    except (ImportError, ValueError):
        return False
    return spec is not None and not _same(spec.origin, path)


@contextmanager
def _told(name: Named) -> Iterator[None]:
    """Turn whatever the user's code raises to one line with its file, line and message."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError) and error.filename:
            file, line, said = error.filename, error.lineno, error.msg
        else:
            frames = traceback.extract_tb(error.__traceback__)
            own = [one for one in frames if not _installed(Path(one.filename)) and __file__ != one.filename]
            last = (own or list(frames))[-1]
            file, line, said = last.filename, last.lineno, one_line(error)
        what = f"{type(error).__name__}: {said}" if said != type(error).__name__ else said
        raise UserError(f"network {name.text!r} failed at {file}, line {line}: {what}") from None
