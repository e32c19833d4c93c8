"""Free memory: the machine's, and what control groups of both versions leave."""

import pytest

from degan_search.system import memory

STAT = "anon 5\ninactive_file 100\nactive_file 20\ntotal_inactive_file 100\ntotal_active_file 20"


def put(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_this_machine_has_some():
    assert memory.available() > 2**20


def test_where_nothing_is_said(tmp_path):
    assert memory.available(tmp_path) is None


def group(root, place, limit, used, old=False):
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
    (root / place).mkdir(parents=True, exist_ok=True)
    for name, text in zip((*names, "memory.stat"), (limit, used, STAT), strict=True):
        (root / place / name).write_text(f"{text}\n")


@pytest.mark.parametrize(("kind", "old"), [("", False), ("memory", True)])
@pytest.mark.parametrize("name", ["/a/b", "/", "/not/seen/in/a/container"])
def test_the_tightest_limit_counts(tmp_path, kind, old, name):
    put(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemAvailable:       4 kB\n", proc__self__cgroup=f"3:{kind}:{name}\n")
    assert memory.available(tmp_path) == 4096
    top = f"sys/fs/cgroup/{kind}"
    group(tmp_path, top, "max", 700, old)
    assert memory.available(tmp_path) == 4096
    group(tmp_path, top, 3000, 700, old)
    assert memory.available(tmp_path) == 3000 - 700 + 120
    group(tmp_path, f"{top}/a/b", 1000, 600, old)
    assert memory.available(tmp_path) == (520 if name == "/a/b" else 2420)
    group(tmp_path, top, 500, 700, old)
    assert memory.available(tmp_path) == 0
