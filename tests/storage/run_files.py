"""Files of a run, for the tests of storage."""

from degan_search.storage import LocalPlace

BIG = bytes(range(256)) * 80_000  # 20 MB


def put(mirror, name, data, push=True):
    LocalPlace(mirror.local).write(name, data)
    if push:
        mirror.push(name)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}
