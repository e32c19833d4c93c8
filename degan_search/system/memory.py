"""How much memory a process could still get."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def available(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that are free here: of the machine, or of the control group that holds the process.

    What the kernel holds as copies of files counts as free. None: the system does not say (it is not Linux). `root` is
    where `proc` and `sys` lie.
    """
    found = list(_groups(root))
    with suppress(OSError):
        if said := re.search(r"^MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE):
            found.append(1024 * int(said[1]))
    return max(0, min(found)) if found else None


def _groups(root: Path) -> Iterator[int]:
    """Yield what each control group of this process, and each above it, leaves free; those without a limit are none."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        kinds, _, name = rest.partition(":")
        if kinds not in ("", "memory"):
            continue
        # Of version 2 all kinds lie in one tree; a container may see its own group as the tree's root.
        top = root / "sys/fs/cgroup" / kinds
        own = top / name.lstrip("/")
        for place in (own, *own.parents):
            if place.is_relative_to(top):
                with suppress(OSError, ValueError, KeyError):  # ValueError: "max", which is no limit
                    yield _left(place, old=bool(kinds))


def _left(place: Path, old: bool) -> int:
    limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
    numbers = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
    copies = sum(int(numbers[f"total_{kind}" if old else kind]) for kind in ("inactive_file", "active_file"))
    return int((place / limit).read_text()) - int((place / used).read_text()) + copies
