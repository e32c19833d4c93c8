"""The disk is full when rows or checkpoints are written: a tmpfs of a few megabytes, filled amid a sweep."""

import subprocess

import pytest
from harness import MAIN, Driver, check, rows, same_as_uninterrupted, still, write_space

pytestmark = pytest.mark.faults
OPTIONS = ("--max-concurrent", "1", "--checkpoint-every", "0")


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk):
    """Take all that is free."""
    file = disk / "ballast"
    with file.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            pass
    return file


def test_a_full_disk_is_waited_for_and_nothing_is_lost(tmp_path, disk):
    write_space(tmp_path)
    run = disk / "runs" / "tiny"
    driver = Driver(tmp_path, "sweep", "tiny.yaml", "--storage", disk / "runs", *OPTIONS)
    driver.until(lambda: any((run / "trials").glob("*/checkpoint-*")))
    ballast = fill(disk)
    before = rows(run)
    # The trial goes on without checkpoints, cannot save its networks, and is tried again.
    driver.until(lambda: "No space left on device" in driver.text)
    assert rows(run) == before
    ballast.unlink()
    assert driver.wait() == 0, driver.text
    frame = check(run)
    same_as_uninterrupted(run, frame)
    assert frame["attempt"].max() > 1


def test_a_disk_that_stays_full_ends_the_sweep_with_its_reason(tmp_path, disk):
    write_space(tmp_path)
    run = disk / "runs" / "tiny"
    impatient = "from degan_search.search.run import faults; faults.DISK_PATIENCE = 2.0\n"
    driver = Driver(
        tmp_path, "sweep", "tiny.yaml", "--storage", disk / "runs", *OPTIONS, "--retries", "0", main=impatient + MAIN
    )
    driver.until(lambda: any((run / "trials").glob("*/checkpoint-*")))
    ballast = fill(disk)
    before = rows(run)
    assert driver.wait() == 1, driver.text
    assert "stopped, as the disk takes no rows: " in driver.text
    assert "No space left on device" in driver.text
    assert "Traceback" not in driver.text
    assert not list((run / "ledger").glob("*.parquet.*"))
    ballast.unlink()
    again = Driver(tmp_path, "resume", run, "--retry-failed")
    assert again.wait() == 0, again.text
    still(before, run)
    same_as_uninterrupted(run, check(run))


def test_a_folder_that_cannot_be_written_is_refused_before_anything_starts(tmp_path, disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    write_space(tmp_path)
    driver = Driver(tmp_path, "sweep", "tiny.yaml", "--storage", disk / "runs")
    assert driver.wait() == 2
    assert "cannot be written: Read-only file system" in driver.text
    assert not (disk / "runs").exists()
