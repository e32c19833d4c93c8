"""Finals of a tiny run under a real Ray, taken up where an earlier call was cut short; and their parts on made rows."""

import io
import json
from dataclasses import asdict, replace
from itertools import pairwise

import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis import finals as paired
from degan_search import ledger
from degan_search.cli.main import app
from degan_search.ledger.columns import config_columns, config_of
from degan_search.search.finals import finals as module
from degan_search.search.finals.finals import finals
from degan_search.search.finals.lineup import Entrant, Request, check, entrants, final_config
from degan_search.search.finals.log import fresh_seeds
from degan_search.search.finals.rounds import final_scores, rounds, stops
from degan_search.search.run.options import Options
from degan_search.settings import yaml_text
from degan_search.settings.methods import normalised
from degan_search.settings.resolve import stable_hash, trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError

# No generators in the bank: each would be a worker's start more.
CHANGES = {"gan.steps": 6, "bank.generators": []}
REQUEST = Request(top=2, seeds=4, baselines=("dcgan", "proxy_matched"), changes=CHANGES)
SEEDS = [7, 8, 9, 10]


@pytest.fixture(scope="session")
def tiny(tiny):
    """As rows hold configurations: what a method does not use is at one value."""
    return lambda *changes: normalised(tiny(*changes))


def call(*arguments):
    return CliRunner(env={"TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [*map(str, arguments)])


def write(folder, trial_id, config, score, accuracy=0.5):
    """Write the row and scores of a trial that nobody ran."""
    phase, number = trial_id.split("-")
    about = {"trial_id": trial_id, "attempt": 1, "phase": phase, "number": int(number), "cell": "digits"}
    state = "COMPLETE" if score is not None else "FAIL"
    ledger.write(folder, about | {"state": state, "score": score} | config_columns(config))
    if score is not None:
        scores = {"oracle_half_1": accuracy, "oracle_half_2": accuracy, "oracle_accuracy": accuracy}
        scores |= {"cross_agreement": 0.5} if phase == "search" else {"test_accuracy": accuracy}
        ledger.write_scores(folder, {"trial_id": trial_id} | scores)


def searched(folder, tiny):
    """Fill a folder with three searched configurations, a failed one, and a final with seed 1."""
    for number, (weights, score) in enumerate([((0, 5), 0.6), ((1, 5), 0.7), ((1, 10), 0.5), ((2, 2), None)]):
        write(folder, f"search-{number:04d}", tiny({"gan.lambda_e": weights[0], "gan.lambda_d": weights[1]}), score)
    write(folder, "final-0003", tiny({"seed": 1}), 0.65)
    return folder


def said_and_table(folder, store, request=REQUEST):
    (folder.parent / "cache").symlink_to(store)
    out = io.StringIO()
    options = Options(folder.parent, str(folder), max_concurrent=1)
    finals(request, options, Console(file=out, width=200))
    return out.getvalue(), paired.compare(ledger.load(folder))


@pytest.fixture(scope="module")
def before(tmp_path_factory, tiny):
    """A run whose finals were cut short: seeds chosen, one of them done for the best configuration."""
    folder = searched(tmp_path_factory.mktemp("runs") / "tiny", tiny)
    best = tiny({"gan.lambda_e": 1, "seed": 7, **REQUEST.changes})
    write(folder, "final-0004", best, 0.6)
    (folder / "trials" / "final-0005").mkdir(parents=True)  # begun, no row
    asked = json.loads(json.dumps(asdict(REQUEST))) | {"by": "score", "chosen": ["search-0001", "search-0000"]}
    log = [asked | {"seeds_run": SEEDS, "started": "before", "stopped": {}, "finished": None}]
    (folder / "finals.json").write_text(json.dumps(log))
    return folder, {file: file.read_bytes() for file in folder.rglob("*.parquet")}


@pytest.fixture(scope="module")
def done(before, store, teacher):
    """After the call: what it said, its table, the rows; the second of the two is stopped after three seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.paired_test, "losers", lambda scores: list(scores.columns[1:]))
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


class TestEntrants:
    """Who runs."""

    @pytest.fixture
    def frame(self, tmp_path, tiny):
        return ledger.load(searched(tmp_path / "run", tiny))

    def test_the_best_with_their_baselines(self, frame):
        lineup = entrants(frame, Request(top=2))
        assert [entrant.source for entrant in lineup] == ["search-0001", "search-0000", None, None, None]
        assert [entrant.config.method for entrant in lineup[2:]] == ["dcgan", "proxy_matched", "proxy"]
        assert all(entrant.config.gan.lambda_d == 0 for entrant in lineup[2:])
        assert {entrant.config.gan.steps for entrant in lineup} == {12}

    def test_methods_without_weights_are_not_chosen(self, frame, tmp_path, tiny):
        write(tmp_path / "run", "search-0009", tiny({"method": "proxy"}), 0.99)
        assert entrants(ledger.load(tmp_path / "run"), Request())[0].source == "search-0001"

    def test_without_a_finished_search(self, frame):
        with pytest.raises(UserError, match="no finished search trial"):
            entrants(frame[frame["phase"] == "final"], Request())

    def test_the_papers_budget_keeps_networks_data_and_weights(self, tiny):
        config = tiny({"gan.lambda_e": 3, "probe.at": [6]})
        paper, final = TrialConfig(), final_config(config, Request(budget="paper", changes={"distill.steps": 9}))
        kept = {"lambda_e": 3.0, "lambda_d": 5.0, "width": 2, "latent": 4}
        assert final.gan == paper.gan.model_copy(update=kept)
        assert final.distill == paper.distill.model_copy(update={"steps": 9})
        assert final.distill_images == paper.distill_images
        for name in ("proxy", "count", "teacher", "student", "bank"):
            assert getattr(final, name) == getattr(config, name)
        assert final.probe.at == ()

    def test_unknown_settings(self, frame):
        with pytest.raises(UserError, match=r"gan\.step'"):
            entrants(frame, Request(changes={"gan.step": 3}))

    def test_fresh_seeds_are_in_no_row(self, frame):
        assert fresh_seeds(frame, 3) == [2, 3, 4]
        assert fresh_seeds(frame[frame["phase"] == "search"], 3) == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"top": 0}, "--top 0"),
        ({"seeds": 0}, "--seeds 0"),
        ({"budget": "papr"}, "as-is or paper"),
        ({"baselines": ("dcgam",)}, "did you mean dcgan"),
        ({"baselines": ("degan",)}, "no baseline"),
        ({"changes": {"seed": 3}}, "--seeds"),
    ],
)
def test_wrong_requests(change, says):
    with pytest.raises(UserError, match=says):
        check(replace(Request(), **change))


def test_wrong_folders_are_refused_before_ray_starts(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(module, "ray_cluster", None)
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


def test_rounds_cover_every_seed_once():
    assert rounds([4, 5], True) == [([4, 5], [4, 5])]
    assert rounds([4, 5, 6, 7], False) == [([4, 5, 6, 7], [4, 5, 6, 7])]
    assert rounds([4, 5, 6, 7, 8], True) == [([4, 5, 6], [4, 5, 6]), ([4, 5, 6, 7], [7]), ([4, 5, 6, 7, 8], [8])]
    assert all(before[0] + after[1] == after[0] for before, after in pairwise(rounds([*range(9)], True)))


class TestStops:
    """`stops` on made rows: search-0 leads A by 0.1, 0.2, 0.3 (p 0.037) and ties with B."""

    SCORES = {"search-0": (0.5, 0.6, 0.7), "A": (0.4, 0.4, 0.4), "B": (0.51, 0.59, 0.7)}

    def field(self, tiny, **proxies):
        return [
            Entrant(tiny({"gan.lambda_d": number, "proxy": proxies.get(name, "digits")}), "cell", name)
            for number, name in enumerate(self.SCORES)
        ]

    def frame(self, folder, field, tiny):
        number = 0
        for entrant in field:
            for seed, score in enumerate(self.SCORES[entrant.source], start=1):
                write(folder, f"final-{number:04d}", entrant.config.model_copy(update={"seed": seed}), score)
                number += 1
        return ledger.load(folder)

    def test_one_that_is_beaten(self, tmp_path, tiny):
        two = self.field(tiny)[:2]
        frame = self.frame(tmp_path, two, tiny)
        assert [entrant.source for entrant in stops(two, [1, 2, 3], frame)] == ["A"]
        assert stops(two, [1, 2], frame) == []

    def test_more_comparisons_ask_for_more(self, tmp_path, tiny):
        three = self.field(tiny)
        assert stops(three, [1, 2, 3], self.frame(tmp_path, three, tiny)) == []

    def test_proxies_do_not_compete_and_baselines_never_stop(self, tmp_path, tiny):
        apart = self.field(tiny, A="photos")[:2]
        assert stops(apart, [1, 2, 3], self.frame(tmp_path, apart, tiny)) == []
        leader, beaten = self.field(tiny)[:2]
        frame = self.frame(tmp_path / "other", [leader, beaten], tiny)
        assert stops([leader, replace(beaten, source=None)], [1, 2, 3], frame) == []


def test_what_is_done_is_known_by_its_configuration(tmp_path, tiny):
    frame = ledger.load(searched(tmp_path / "run", tiny))
    (row,) = [row for _, row in frame.iterrows() if row["phase"] == "final"]
    assert final_scores(frame) == {stable_hash(config_of(row)): 0.65}


class TestCommands:
    """`best`, and `finals --compare-only`."""

    @pytest.fixture
    def folder(self, tmp_path, tiny):
        return searched(tmp_path / "run", tiny)

    def test_best_prints_the_choice(self, folder):
        lines = call("best", folder, "--top", 2).stdout.splitlines()
        assert lines[0].split() == ["run", "trial", "cell", "lambda_e", "lambda_d", "score"]
        assert [line.split()[1] for line in lines[2:]] == ["search-0001", "search-0000"]

    def test_best_as_json(self, folder, tiny):
        (found,) = json.loads(call("best", folder, "--json").stdout)
        assert (found["trial"], found["score"]) == ("search-0001", 0.7)
        assert TrialConfig.model_validate(found["config"]) == tiny({"gan.lambda_e": 1})

    def test_best_as_settings_files_that_run_takes(self, folder, tmp_path, tiny):
        assert call("best", folder, "--yaml", tmp_path / "out").exit_code == 0
        (file,) = (tmp_path / "out").iterdir()
        assert trial_config(yaml_text.read(file, "file")) == tiny({"gan.lambda_e": 1})
        again = call("best", folder, "--yaml", tmp_path / "out")
        assert (again.exit_code, "already there" in again.stderr) == (2, True)

    @pytest.mark.parametrize(
        ("option", "says"),
        [(("--by", "scor"), "did you mean score"), (("--per", "proxi"), "proxy"), (("--top", 0), "0")],
    )
    def test_best_refuses(self, folder, option, says):
        result = call("best", folder, *option)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert says in result.stderr

    def test_compare_only_runs_nothing(self, folder):
        result = call("finals", folder, "--compare-only")
        assert result.exit_code == 0, result.output
        assert "degan (chosen)" in result.stdout
        assert "degan (chosen)" in (folder / "finals.md").read_text()
        assert not (folder / "finals.json").exists()
