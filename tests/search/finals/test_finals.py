"""Finals of a tiny run under a real Ray, taken up where an earlier call was cut short."""

import io
import json

import pytest
from rich.console import Console

from analysis.finals import compare
from degan_search import ledger
from degan_search.search.finals import finals as final_runs
from degan_search.search.finals import rounds
from degan_search.search.finals.finals import finals
from degan_search.search.finals.lineup import Request
from degan_search.search.run.options import Options
from degan_search.system.errors import UserError
from tests.search.finals.made_runs import searched, write

# No generators in the bank: each would be a worker's start more.
CHANGES = {"gan.steps": 6, "bank.generators": []}
REQUEST = Request(top=2, seeds=4, baselines=("dcgan", "proxy_matched"), changes=CHANGES, referee=True)
SEEDS = [7, 8, 9, 10]


def said_and_table(folder, store, request=REQUEST):
    (folder.parent / "cache").symlink_to(store)
    out = io.StringIO()
    options = Options(folder.parent, str(folder), max_concurrent=1)
    finals(request, options, Console(file=out, width=200))
    return out.getvalue(), compare(ledger.load(folder))


@pytest.fixture(scope="module")
def before(tmp_path_factory, tiny):
    """A run whose finals were cut short: seeds chosen, one of them done for the best configuration."""
    folder = searched(tmp_path_factory.mktemp("runs") / "tiny", tiny)
    best = tiny({"gan.lambda_e": 1, "seed": 7, **REQUEST.changes})
    write(folder, "final-0004", best, 0.6)
    (folder / "trials" / "final-0005").mkdir(parents=True)  # begun, no row
    asked = REQUEST.saved() | {"by": "score", "chosen": ["search-0001", "search-0000"]}
    log = [asked | {"seeds_run": SEEDS, "started": "before", "stopped": {}, "finished": None}]
    (folder / "finals.json").write_text(json.dumps(log))
    return folder, {file: file.read_bytes() for file in folder.rglob("*.parquet")}


@pytest.fixture(scope="module")
def done(before, store, teacher):
    """After the call: what it said, its table, the rows; the second of the two is stopped after three seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds.paired_test, "losers", lambda scores: list(scores.columns[1:]))
        said, table = said_and_table(before[0], store)
    return said, table, ledger.load(before[0]).set_index("trial_id")


def test_every_configuration_and_seed_once_but_what_was_done_or_stopped(done):
    frame = done[2]
    new = frame[(frame["phase"] == "final") & (frame.index > "final-0005")]
    assert (frame["state"] == "COMPLETE").sum() == len(frame) - 1
    ran = sorted(zip(new["config_seed"], new["config_method"], new["config_gan_lambda_e"], strict=True))
    expected = [(seed, method, 0.0) for seed in SEEDS for method in ("dcgan", "proxy_matched")]
    expected += [(seed, "degan", 1.0) for seed in (8, 9, 10)] + [(seed, "degan", 0.0) for seed in (7, 8, 9)]
    assert ran == sorted(expected)
    assert (new["config_gan_steps"] == 6).all()


def test_ids_go_on_and_nothing_is_written_over(before, done):
    finals_ = sorted(name for name in done[2].index if name.startswith("final"))
    new = [int(name[-4:]) for name in finals_ if name > "final-0005"]
    assert new == [*range(6, 20)]
    assert list(done[2].loc[[name for name in finals_ if name > "final-0005"], "number"]) == new
    assert all(file.read_bytes() == content for file, content in before[1].items())
    assert all((before[0] / "trials" / f"final-{number:04d}" / "student.safetensors").exists() for number in new)


def test_finals_alone_see_the_test_images(done):
    frame = done[2]
    complete = frame[frame["state"] == "COMPLETE"]
    assert (complete["test_accuracy"].notna() == (complete["phase"] == "final")).all()
    assert complete["oracle_accuracy"].notna().all()
    refereed = complete[complete["referee_best_test_accuracy"].notna()]
    assert sorted(refereed.index) == [f"final-{number:04d}" for number in range(6, 20)]  # those of this call
    assert (refereed["referee_best_test_accuracy"] >= refereed["test_accuracy"]).all()


def test_it_says_which_seeds_and_what_is_not_run(before, done):
    said = done[0]
    assert said.startswith("Chosen by score, and their baselines:\n")
    assert "search-0001: digits, degan (lambda_e 1, lambda_d 5)" in said
    assert "baseline: digits, proxy_matched" in said
    assert "Seeds of the call that was cut short: 7, 8, 9, 10" in said
    assert "search-0000: digits, degan (lambda_e 0, lambda_d 5) cannot win by score after seeds 7, 8, 9" in said
    assert "not run: seeds 10" in said
    (entry,) = json.loads((before[0] / "finals.json").read_text())
    assert entry["finished"]
    assert entry["started"] == "before"
    assert entry["stopped"] == {"search-0000": {"after": [7, 8, 9], "not_run": [10]}}


def test_the_table_compares_over_these_seeds(done):
    table = done[1]
    assert sorted(zip(table["method"], table["n"], strict=True)) == [
        ("dcgan", 4),
        ("degan", 1),  # the final of before, at its own budget
        ("degan", 3),
        ("degan", 4),
        ("proxy_matched", 4),
    ]
    assert list(table.loc[table["method"] == "dcgan", "pairs"]) == [4]


def test_wrong_folders_are_refused_before_ray_starts(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(final_runs, "ray_cluster", None)
    folder = searched(tmp_path / "run", tiny)
    with pytest.raises(UserError, match="no run at"):
        finals(Request(), Options(tmp_path, str(tmp_path / "none")), Console(file=io.StringIO()))
    (folder / "finals.json").write_text("[{")
    with pytest.raises(UserError, match=r"finals\.json is broken"):
        finals(Request(), Options(tmp_path, str(folder)), Console(file=io.StringIO()))
    (folder / "finals.json").unlink()
    (folder / ".write-test").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        finals(Request(), Options(tmp_path, str(folder)), Console(file=io.StringIO()))
