"""Workers are killed, hang, run out of memory or train to nothing: each has its policy, and the sweep goes on."""

import os
import signal

import psutil
import pytest
from harness import TRIAL, Driver, check, patch_everywhere, same_as_uninterrupted, share, write_space

from degan_search import ledger

OPTIONS = ("--storage", "runs", "--max-concurrent", "1")
DIVERGES = 10
EXACT = {"trial": TRIAL | {"precision": "float32"}}
"""In which a GAN of that rate diverges on every machine: bf16's rounding differs by processor."""


def checkpoints(run, trial="search-0000"):
    return list((run / "trials" / trial).glob("checkpoint-*"))


def points(*first, **parameters):
    """Return a space that tries these points and nothing else."""
    return {
        "parameters": parameters,
        "first": list(first),
        "search": {"trials": len(first)},
        "asha": None,
        "finals": None,
    }


def kill_when(driver, ready, number=signal.SIGKILL):
    """Send the driver's worker a signal once the condition holds."""
    driver.until(ready)
    (worker,) = driver.workers()
    os.kill(worker, number)


def test_killed_workers_go_on_from_the_checkpoint_and_divergence_is_a_result(tmp_path):
    parameters = {"gan.lr": [0.002, DIVERGES], "gan.lambda_d": [0, 5]}
    write_space(tmp_path, points({"gan.lr": 0.002}, {"gan.lr": DIVERGES}, **parameters) | EXACT)
    share(tmp_path)
    run = tmp_path / "runs" / "tiny"
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, "--checkpoint-every", "0", "--retries", "1")
    kill_when(driver, lambda: checkpoints(run))
    (run / "trials" / "search-0000" / ".tmp-1234-checkpoint-000009").write_bytes(b"as if killed while it wrote")
    seen = set(checkpoints(run))
    kill_when(driver, lambda: set(checkpoints(run)) - seen, signal.SIGTERM)  # which is no fault
    assert driver.wait() == 0, driver.text
    assert "search-0000 is tried again in 5 s" in driver.text
    assert "search-0000 goes on in 5 s: its process was told to end" in driver.text
    frame = check(run, failed=["search-0001"]).set_index("trial_id")
    assert frame["attempt"].to_dict() == {"search-0000": 3, "search-0001": 1}
    assert (frame.loc["search-0001", ["state", "cause"]] == ["FAIL", "diverged"]).all()
    same_as_uninterrupted(run, frame.reset_index())
    # One curve, without gaps or repeats, though two processes told of it.
    curve = ledger.curves(run).query("trial_id == 'search-0000' and stage == 'gan'")
    assert list(curve["budget"]) == sorted(set(curve["budget"]))
    assert curve["budget"].max() == TRIAL["gan"]["steps"]


@pytest.mark.faults
def test_a_worker_killed_again_and_again_fails_its_trial_and_can_be_retried(tmp_path):
    write_space(tmp_path, points({"gan.lr": 0.002}, {"gan.lr": 0.003}, **{"gan.lr": [0.002, 0.003]}))
    run = tmp_path / "runs" / "tiny"
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, "--checkpoint-every", "0", "--retries", "1")
    seen = set()
    for _ in range(2):  # the second time after it has gone on from where it was
        driver.until(lambda seen=seen: set(checkpoints(run)) - seen)
        seen = set(checkpoints(run))
        (worker,) = driver.workers()
        os.kill(worker, signal.SIGKILL)
    assert driver.wait() == 1, driver.text
    assert "--retry-failed` tries them again" in driver.text
    frame = ledger.load(run).set_index("trial_id")
    assert frame["state"].to_dict() == {"search-0000": "FAIL", "search-0001": "COMPLETE"}
    assert frame.loc["search-0000", "cause"] == "worker_lost"
    assert frame.loc["search-0000", "attempt"] == 2
    assert checkpoints(run)
    plain = Driver(tmp_path, "resume", run)
    assert plain.wait() == 0, plain.text  # a row is a row, unless asked
    assert ledger.load(run).set_index("trial_id")["state"].to_dict() == frame["state"].to_dict()
    again = Driver(tmp_path, "resume", run, "--retry-failed")
    assert again.wait() == 0, again.text
    frame = ledger.load(run)
    assert frame.set_index("trial_id")["attempt"].to_dict() == {"search-0000": 3, "search-0001": 1}
    assert (frame["state"] == "COMPLETE").all()
    same_as_uninterrupted(run, frame)


@pytest.mark.faults
@pytest.mark.parametrize("frozen", [False, True], ids=["hangs", "frozen"])
def test_a_trial_that_hangs_ends_at_the_time_limit(tmp_path, frozen):
    """It waits for ever in its own code, or its whole process is stopped; the next trial runs."""
    write_space(tmp_path, points({"gan.lr": 0.002}, {"gan.lr": 0.003}, **{"gan.lr": [0.002, 0.003]}))
    run = tmp_path / "runs" / "tiny"
    environment = {}
    if not frozen:
        # In every Python process: once a trial has a checkpoint for the first time, its next one never comes back.
        patch_everywhere(tmp_path, "degan_search.search.workers.checkpoints", HANGS.format(mark=tmp_path / "hung"))
        environment = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    options = (*OPTIONS, "--checkpoint-every", "0", "--time-limit", "25s")
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *options, environment=environment)
    if frozen:
        driver.until(lambda: checkpoints(run))
        (worker,) = driver.workers()
        os.kill(worker, signal.SIGSTOP)
    assert driver.wait() == 1, driver.text
    frame = ledger.load(run).set_index("trial_id")
    assert frame["state"].to_dict() == {"search-0000": "FAIL", "search-0001": "COMPLETE"}
    assert frame.loc["search-0000", "cause"] == "time_limit"
    assert frame.loc["search-0000", "reason"] == "not done within the time limit of 25 s"


HANGS = """
import os, time
save = module.save
def hang(*given):
    save(*given)
    if not os.path.exists("{mark}"):
        open("{mark}", "w").close()
        time.sleep(10**6)
module.save = hang
"""


@pytest.mark.faults
def test_a_worker_that_takes_the_machines_memory_is_killed_and_its_trial_fails(tmp_path):
    """Ray's memory monitor kills it before the kernel kills anything."""
    greedy = {"distill.score_images": [64, 2_500_000]}
    write_space(tmp_path, points(*({"distill.score_images": n} for n in (2_500_000, 64)), **greedy))
    memory = psutil.virtual_memory()
    threshold = round(1 - (memory.available - 4e9) / memory.total, 3)
    if threshold > 0.95:
        pytest.skip("too little memory free for this test")
    driver = Driver(
        tmp_path,
        *("sweep", "tiny.yaml", *OPTIONS, "--retries", "1"),
        environment={"RAY_memory_usage_threshold": str(threshold), "RAY_memory_monitor_refresh_ms": "100"},
    )
    assert driver.wait(600) == 1, driver.text
    frame = ledger.load(tmp_path / "runs" / "tiny").set_index("trial_id")
    assert frame["state"].to_dict() == {"search-0000": "FAIL", "search-0001": "COMPLETE"}
    assert frame.loc["search-0000", ["cause", "attempt"]].to_list() == ["out_of_memory", 2]


@pytest.mark.faults
def test_a_generator_that_collapses_and_a_machine_where_everything_fails(tmp_path):
    """Collapse is the configuration's own result; trial after trial that cannot be written stops the sweep."""
    write_space(tmp_path, points({"gan.lr": DIVERGES}, **{"gan.lr": [DIVERGES, 0.002]}) | EXACT, "collapse")
    driver = Driver(tmp_path, "sweep", "collapse.yaml", *OPTIONS)
    assert driver.wait() == 0, driver.text
    row = ledger.load(tmp_path / "runs" / "collapse").iloc[0]
    assert (row["state"], row["cause"]) == ("FAIL", "diverged")

    write_space(tmp_path, {"search": {"trials": 12}, "asha": None, "finals": None})
    run = tmp_path / "runs" / "tiny"
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS)
    driver.until(lambda: (run / "jobs").exists())
    for number in range(12):
        folder = run / "trials" / f"search-{number:04d}"
        if not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            folder.write_text("in the way")
    assert driver.wait() == 1, driver.text
    assert "trials in a row failed, the last with: FileExistsError" in driver.text
    failed = (ledger.load(run)["cause"] == "error").sum()
    assert 8 <= failed < 12
    for blocked in (run / "trials").glob("search-*"):
        if blocked.is_file():
            blocked.unlink()
    again = Driver(tmp_path, "resume", run, "--retry-failed")
    assert again.wait() == 0, again.text
    frame = ledger.load(run)
    assert len(frame) == 12
    assert not (frame["state"] == "FAIL").any()
