"""Processes that bind themselves to CPUs, in real processes."""

import multiprocessing
import os
import threading
from contextlib import contextmanager

import pytest

from degan_search.system.cpus import pin

FORK = multiprocessing.get_context("fork")
needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")


@pytest.fixture
def cpus(monkeypatch):
    """Two CPUs at most, under names that no sweep on this machine uses."""
    monkeypatch.setattr("degan_search.system.cpus.CPU_NAME", f"degan-search/test/{os.getpid()}")
    before = os.sched_getaffinity(0)
    some = set(sorted(before)[:2])
    os.sched_setaffinity(0, some)
    yield some
    os.sched_setaffinity(0, before)


@contextmanager
def pinned(threads):
    """A process that binds itself to CPUs: the process, what two calls returned, and the CPUs of two of its threads."""

    def work(answers):
        could = pin(threads)
        seen = [os.sched_getaffinity(0)]
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
        answers.send((could, pin(threads), *seen))
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
    assert not pin(1)
