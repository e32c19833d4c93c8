"""Broken inputs for every reader of somebody else's files: `python tests/faults/fuzz.py READER INPUTS [SEED]`.

Each input is a valid file that was cut, flipped, spliced or given other lengths, or plain chance; the same seed gives
the same inputs. A reader may accept it or raise UserError. Anything else, a killed or hanging process, code that ran or
much memory is a fault: the input is left in the folder that is printed.
"""

from __future__ import annotations

import faulthandler
import json
import random
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from fuzz_readers import MARK, READERS, Seed

from degan_search.system.errors import UserError

MEMORY = 4 * 2**30
"""Bytes that a reader's process may take beside what it has before the first input."""
PEAK = 2**30
"""Bytes by which its resident memory may grow."""
HANGS = 120
"""Seconds after which a reader hangs."""
WORDS = [
    b"[",
    b"{",
    b"}",
    b"]",
    b":",
    b",",
    b"-",
    b"'",
    b'"',
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!python/name:os.system ",
    b"!!int ",
]
WORDS += [
    b"!!binary ",
    b"!!set ",
    b"? ",
    b"|\n",
    b"\t",
    b"1e999",
    b".inf",
    b"NaN",
    b"9" * 5000,
    b"2001-99-99",
    b"0x",
    b"1:2",
]
WORDS += [
    b"[" * 3000,
    b'{"a":' * 3000,
    b'"\\ud800"',
    b'"\\u001b[31m"',
    b"\xff",
    b"\0",
    b"\xef\xbb\xbf",
    b"null",
    b"true",
    b"-1",
]


def mutated(rng: random.Random, seeds: list[Seed], text: bool) -> bytes:
    """Return a seed after one to four changes, or now and then random bytes."""
    if rng.random() < 0.01:
        return rng.randbytes(rng.randrange(400))
    content, finish = rng.choice(seeds)
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        size = rng.choice((1, 2, 4, 8))
        change = rng.randrange(8 if text else 7)
        if change == 0:
            del data[at:]
        elif change == 1:
            del data[at : at + rng.randrange(64)]
        elif change == 2 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif change == 3:  # a length, or anything else that is counted
            value = rng.choice((0, 1, -1, 127, 2 ** (8 * size - 1) - 1, rng.randrange(2 ** (8 * size)), 10**6, 2**31))
            data[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, rng.choice(("little", "big")))
        elif change == 4:
            other, _ = rng.choice(seeds)
            start = rng.randrange(len(other) + 1)
            data[at:at] = other[start : start + rng.randrange(256)]
        elif change == 5:
            data[at:at] = data[at : at + rng.randrange(64)] * rng.randrange(1, 50)
        elif change == 6:
            data[at:at] = rng.randbytes(rng.randrange(16))
        else:
            data[at:at] = rng.choice(WORDS)
    return finish(bytes(data))


def fuzz(name: str, inputs: int, seed: int, folder: Path) -> dict[str, object]:
    """Read so many inputs, written into the folder one after the other, and count what was accepted and refused."""
    reader = READERS[name]
    path = folder / reader.name
    path.parent.mkdir(exist_ok=True)
    seeds = reader.seeds(folder)
    counts, began = {"accepted": 0, "refused": 0}, time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(inputs):
            path.write_bytes(mutated(random.Random(f"{name} {seed} {number}"), seeds, reader.text))
            faulthandler.dump_traceback_later(HANGS, exit=True)
            try:
                reader.read(path)
                counts["accepted"] += 1
            except UserError:
                counts["refused"] += 1
    faulthandler.cancel_dump_traceback_later()
    assert not Path(MARK).exists(), "an input's code ran"
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < PEAK, f"memory grew by {grown:,} bytes"
    return {"reader": name, "inputs": inputs, **counts, "seconds": time.perf_counter() - began, "grown": grown}


def main(name: str, inputs: str, seed: str = "0") -> None:
    """Fuzz one reader within a limit on memory, and print what came of it as JSON."""
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name.replace(' ', '-')}-"))
    print(folder, file=sys.stderr)
    here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (here + MEMORY, here + MEMORY))
    print(json.dumps(fuzz(name, int(inputs), int(seed), folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
