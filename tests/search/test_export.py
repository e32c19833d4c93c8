"""Exports of a made-up run, opened with the tools that they are for; and trackers that are missing or fail."""

import io
import json

import numpy as np
import optuna
import pandas as pd
import pytest
from made_ledger import made_ledger
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial
from optuna_dashboard import wsgi
from ray import tune
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from typer.testing import CliRunner

from degan_search import ledger
from degan_search.cli.main import app
from degan_search.ledger.columns import METRICS, config_columns
from degan_search.search import export
from degan_search.search.callbacks import trackers
from degan_search.search.run import tune_dicts
from degan_search.search.run.options import Options
from degan_search.search.run.results import TrialResult
from degan_search.search.space import file as space_file
from degan_search.search.space.cell import cells
from degan_search.search.space.schema import Space
from degan_search.search.suggest.studies import studies
from degan_search.search.sweep import sweep
from degan_search.system.errors import UserError

PROXIES = ("noise/uniform", "digits")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_ledger(tmp_path_factory.mktemp("runs") / "made", 48)


@pytest.fixture(scope="module")
def frame(run):
    rows = ledger.load(run).set_index("trial_id")
    assert set(rows["state"]) == {"COMPLETE", "PRUNED", "FAIL"}
    return rows


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    file = tmp_path_factory.mktemp("exports") / "new" / "made.journal"
    export.to_optuna(run, file)
    return file


@pytest.fixture(scope="module")
def dashboard(file):
    served = wsgi(JournalStorage(JournalFileBackend(str(file))))

    def get(path):
        answered = {}
        request = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
        request |= {"wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(), "wsgi.url_scheme": "http"}
        body = b"".join(served(request, lambda status, headers, error=None: answered.update(status=status)))
        assert answered["status"] == "200 OK", body
        return json.loads(body)

    return get


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "new" / "events"
    assert export.to_tensorboard(run, folder) == 48
    return folder


@pytest.fixture(scope="module")
def events(folder):
    read = {}
    for one in folder.iterdir():
        read[one.name] = EventAccumulator(str(one))
        read[one.name].Reload()
    return read


def call(*arguments):
    return CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [*map(str, arguments)])


class TestOptuna:
    """The journal file, in optuna-dashboard."""

    def test_a_study_a_cell_named_by_run_and_cell(self, dashboard, run):
        listed = dashboard("/api/studies")["study_summaries"]
        assert [study["study_name"] for study in listed] == [f"made {label}" for label in studies(run)]
        assert {study["directions"][0] for study in listed} == {"maximize"}

    def test_its_trials_are_the_ledgers(self, dashboard, run, frame):
        search = frame[frame["phase"] == "search"]
        seen = 0
        for study in dashboard("/api/studies")["study_summaries"]:
            shown = dashboard(f"/api/studies/{study['study_id']}")["trials"]
            rows = search[search["cell"] == study["study_name"].removeprefix("made ")].sort_values("number")
            for trial, (name, row) in zip(shown, rows.iterrows(), strict=True):
                about = {one["key"]: one["value"] for one in trial["user_attrs"]}
                assert about["trial_id"] == name
                assert trial["state"].upper() == row["state"]
                params = {one["name"]: one["param_external_value"] for one in trial["params"]}
                weight = 0 if params["gan.lambda_d is 0"] == "True" else float(params["gan.lambda_d"])
                assert weight == pytest.approx(row["config_gan_lambda_d"])
                if row["state"] == "COMPLETE":
                    assert trial["values"] == [pytest.approx(row["score"])]
                    assert float(about["oracle_accuracy"]) == pytest.approx(row["oracle_accuracy"])
                    assert [one["step"] for one in trial["intermediate_values"]] == [100, 200]
                seen += 1
        assert seen == len(search) == 32

    def test_parameters_that_are_lists_show_values(self, tmp_path):
        lists = {"gan.lambda_d": [5.0, 50.0], "gan.width": [8, 4], "method": ["degan", "dcgan"], "proxy": list(PROXIES)}
        cell = cells(Space(parameters=lists))[0]
        drawn = []
        for number in range(6):
            config = cell.configure(FixedTrial(dict.fromkeys(lists, number % 2)))
            about = {"cell": cell.label, "phase": "search", "trial_id": f"search-{number:04d}", "number": number}
            about |= {"attempt": 1, "state": "COMPLETE", "score": 0.5, "teacher_hash": "0" * 16}
            about |= {"started": pd.Timestamp("2026-01-01", tz="UTC"), "finished": pd.Timestamp("2026-01-01", tz="UTC")}
            ledger.write_row(tmp_path / "run", about | config_columns(config))
            drawn.append(config)
        (tmp_path / "run" / "space.yaml").write_text(space_file.dump(cell.space))
        (name,) = export.to_optuna(tmp_path / "run", tmp_path / "journal")
        storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
        trials = optuna.load_study(study_name=name, storage=storage).trials
        assert [trial.params["proxy"] for trial in trials] == [*PROXIES] * 3
        for trial, config in zip(trials, drawn, strict=True):
            assert trial.params["method"] == config.method
            assert trial.params["gan.width"] == config.gan.width
            # `dcgan` uses no weight, so its rows do not say which was drawn.
            assert trial.params.get("gan.lambda_d", 0) == config.gan.lambda_d

    def test_it_overwrites_nothing(self, file, run):
        before = file.read_bytes()
        with pytest.raises(UserError, match=f"{file} is already there"):
            export.to_optuna(run, file)
        assert file.read_bytes() == before

    def test_a_run_of_finals_alone_has_no_study(self, run, tmp_path):
        alone = tmp_path / "finals"
        (alone / "ledger").mkdir(parents=True)
        (alone / "space.yaml").write_bytes((run / "space.yaml").read_bytes())
        with pytest.raises(UserError, match="no search trial"):
            export.to_optuna(alone, tmp_path / "file")
        assert not (tmp_path / "file").exists()


class TestTensorboard:
    """The event files, as TensorBoard reads them."""

    def test_measures_are_the_ledgers(self, events, frame):
        assert events.keys() == set(frame.index)
        for name, row in frame.iterrows():
            measured = {metric for metric in METRICS if pd.notna(row[metric])}
            shown = {tag for tag in events[name].Tags()["scalars"] if tag.startswith("measure/")}
            assert shown == {f"measure/{metric}" for metric in measured}
            for metric in measured:
                (point,) = events[name].Scalars(f"measure/{metric}")
                assert point.value == np.float32(row[metric])
                assert point.step == row["gan_steps"]
                assert point.wall_time == pytest.approx(row["finished"].timestamp())

    def test_curves_are_the_ledgers(self, events, run, frame):
        curves = ledger.curves(run)
        gan = curves[curves["stage"] == "gan"]
        for name, points in gan.groupby("trial_id"):
            for column in ("d_loss", "entropy", "score"):
                known = points[points[column].notna()]
                shown = events[name].Scalars(f"gan/{column}") if len(known) else []
                assert [point.step for point in shown] == list(known["budget"])
                assert [point.value for point in shown] == list(known[column].astype(np.float32))
            first = points.iloc[0]
            began = frame.loc[name, "started"].timestamp()
            assert events[name].Scalars("gan/d_loss")[0].wall_time == pytest.approx(began + first["seconds"])
        images = frame.index[frame["config_method"] == "proxy"]
        assert not any(tag.startswith("gan/") for name in images for tag in events[name].Tags()["scalars"])

    def test_hyperparameters_are_what_varies(self, events, frame):
        for name, row in frame.iterrows():
            data = events[name].SummaryMetadata("_hparams_/session_start_info").plugin_data.content
            shown = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info.hparams
            varies = {"proxy", "method", "seed", "gan_lambda_e", "gan_lambda_d", "probe_at"}
            assert set(shown) == {"phase", "cell", "state", *varies}
            assert shown["gan_lambda_d"].number_value == row["config_gan_lambda_d"]
            assert shown["proxy"].string_value == row["config_proxy"]
            assert shown["probe_at"].string_value == ("[100, 200]" if row["phase"] == "search" else "[]")

    def test_it_overwrites_nothing(self, folder, run):
        with pytest.raises(UserError, match=f"{folder} is already there"):
            export.to_tensorboard(run, folder)
        assert len(list(folder.iterdir())) == 48


class TestCommand:
    """`degan-search export`."""

    def test_it_says_how_to_go_on(self, run, tmp_path):
        result = call("export", run, "--optuna", tmp_path / "journal", "--tensorboard", tmp_path / "events")
        assert result.exit_code == 0, result.output
        assert f"4 studies. Look at them: optuna-dashboard {tmp_path / 'journal'}" in result.stdout
        assert f"48 trials. Look at them: tensorboard --logdir {tmp_path / 'events'}" in result.stdout
        assert (tmp_path / "journal").is_file()
        assert len(list((tmp_path / "events").iterdir())) == 48

    def test_without_a_target_it_lists_them(self, run):
        result = call("export", run)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: nothing to export to: give --optuna FILE, --tensorboard DIR")

    def test_no_run(self, run, tmp_path):
        result = call("export", run.with_name("mode"), "--optuna", tmp_path / "journal")
        assert result.exit_code == 2
        assert "did you mean made?" in result.stderr
        assert not (tmp_path / "journal").exists()


class TestTracking:
    """`sweep --track`; a sweep that is tracked is in test_search_study.py."""

    @pytest.mark.parametrize("name", trackers.TRACKERS)
    def test_what_is_not_installed_is_refused_before_the_run_has_a_folder(self, name, tmp_path, monkeypatch):
        package = trackers.TRACKERS[name].package
        monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda asked: None if asked == package else 1 / 0)
        result = call("sweep", "smoke", "--storage", tmp_path / "runs", "--track", name)
        assert result.exit_code == 2
        assert result.stderr.strip() == (
            f"error: --track {name} needs a package that is not installed: pip install {package}"
        )
        assert not (tmp_path / "runs").exists()

    def test_an_unknown_tracker_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="'mlfow' is unknown; did you mean mlflow"):
            sweep(None, Options(storage=tmp_path, track="mlfow"), Console(file=io.StringIO()))

    def test_mlflow_keeps_its_data_in_the_run_unless_told_otherwise(self, tmp_path, monkeypatch):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        viewer = trackers.TRACKERS["mlflow"].viewer
        assert viewer(tmp_path) == f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlruns/mlflow.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
        assert viewer(tmp_path) == "mlflow ui --backend-store-uri http://localhost:5000"

    def test_numbers_are_plain_finite_and_at_their_gan_step(self):
        told = TrialResult(
            id="search-0000",
            seconds=2.5,
            gan_steps=40,
            state="COMPLETE",
            metrics={"agreement": 0.5, "mcc": float("inf"), "bn_distance": float("nan"), "gan_steps": 40},
            reports=[{"budget": 1, "score": 0.5, "seconds": 1.0}],
            provenance={"versions": {"ray": "2"}},
        )
        added = {"training_iteration": 3, "pid": 7, "config": {"number": 3}}
        result = tune_dicts.to_result([told], [], 1) | added
        numbers = {"agreement": 0.5, "gan_steps": 40, "seconds": 2.5}
        assert trackers.numbers(result) == numbers | {"timesteps_total": 40, "training_iteration": 3}

    @pytest.mark.parametrize("hook", ["make", "setup", "on_trial_start", "on_trial_result", "on_experiment_end"])
    def test_a_tracker_that_fails_is_told_of_once_and_switched_off(self, hook):
        seen, output = [], io.StringIO()

        class Fails(tune.Callback):
            def __init__(self):
                meet(self, "make")

        def meet(self, name, *given, **info):
            seen.append(name)
            if name == hook:
                raise ConnectionError("the server\nis away")

        hooks = ("setup", "on_trial_start", "on_trial_result", "on_trial_complete", "on_trial_error")
        for name in (*hooks, "on_experiment_end"):
            setattr(Fails, name, lambda self, *given, name=name, **info: meet(self, name, *given, **info))
        given = trackers.Tracking(Fails, Console(file=output, width=200))
        for _ in range(2):  # two phases of a sweep
            given.setup()
            given.on_trial_start(0, [], None)
            given.on_trial_result(0, [], None, tune_dicts.to_result([], [], 2))
            given.on_trial_complete(0, [], None)
            given.on_trial_error(0, [], None)
            given.on_experiment_end([])
        order = ["make", *hooks, "on_experiment_end"]
        assert seen == order[: order.index(hook) + 1]
        assert output.getvalue() == "The tracker failed and is switched off, the sweep goes on: the server\n"
