"""Trackers beside the ledger: Ray's own callbacks for MLflow, Weights & Biases and TensorBoard."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console

from degan_search.search.run import tune_dicts
from degan_search.system.errors import UserError, close_matches

UPLOAD_SECONDS = 60
"""How long a phase of a sweep waits at its end for uploads."""


class Tracker(NamedTuple):
    """A tracker: the package that it needs, its callback for a run's folder, and the command that shows its results."""

    package: str
    callback: Callable[[Path], tune.Callback]
    viewer: Callable[[Path], str]


def _mlflow(folder: Path) -> tune.Callback:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    uri = _mlflow_uri(folder)
    if uri.startswith("sqlite"):
        (folder / "mlruns").mkdir(exist_ok=True)
    return MLflowLoggerCallback(tracking_uri=uri, experiment_name=folder.name)


def _mlflow_uri(folder: Path) -> str:
    # A database in one file: MLflow 3.13 and later does not accept a plain folder.
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute() / 'mlruns' / 'mlflow.db'}"


def _wandb(folder: Path) -> tune.Callback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback(
        project=os.environ.get("WANDB_PROJECT") or "degan_search",
        group=folder.name,
        upload_timeout=UPLOAD_SECONDS,
        dir=os.environ.get("WANDB_DIR") or str(folder.absolute()),
    )


def _tensorboard(folder: Path) -> tune.Callback:
    from ray.tune.logger import TBXLoggerCallback

    return TBXLoggerCallback()  # writes where Ray keeps each trial


TRACKERS = {
    "mlflow": Tracker("mlflow", _mlflow, lambda folder: f"mlflow ui --backend-store-uri {_mlflow_uri(folder)}"),
    "wandb": Tracker("wandb", _wandb, lambda folder: f"wandb sync {folder / 'wandb'}/* where it was offline"),
    "tensorboard": Tracker("tensorboardX", _tensorboard, lambda folder: f"tensorboard --logdir {folder / 'ray'}"),
}


def check(name: str) -> None:
    """Refuse a tracker that is unknown or not installed.

    Raises:
        UserError: says which are known, or what to install.
    """
    if name not in TRACKERS:
        raise UserError(f"--track {name!r} is unknown; {close_matches(name, TRACKERS)}")
    package = TRACKERS[name].package
    if importlib.util.find_spec(package) is None:
        raise UserError(f"--track {name} needs a package that is not installed: pip install {package}")


class Tracking(tune.Callback):  # type: ignore[misc]
    """Passes a sweep's trials on to one of Ray's callbacks; when that fails once, the sweep goes on without it.

    Of a result it passes on the numbers that the trial measured, by name, at their GAN step.
    """

    def __init__(self, make: Callable[[], tune.Callback], console: Console) -> None:
        self.make, self.console = make, console
        self.inner: tune.Callback | None = None
        self.failed = False

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        """Leave nothing of this in Ray's snapshots, as `Recorder` does."""
        return tune.Callback, ()

    def setup(self, **info: Any) -> None:
        """Start anew for a phase of the sweep."""

        def start() -> None:
            self.inner = self.make()
            self.inner.setup(**info)

        self._try(start)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Pass it on."""
        self._pass("on_trial_start", iteration, trials, trial, **info)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass the result's numbers on."""
        self._try(lambda: self._inner("on_trial_result", iteration, trials, trial, numbers(result), **info))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Pass it on."""
        self._pass("on_trial_complete", iteration, trials, trial, **info)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Pass it on."""
        self._pass("on_trial_error", iteration, trials, trial, **info)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Pass it on: uploads end here."""
        self._pass("on_experiment_end", trials, **info)

    def _pass(self, hook: str, *given: Any, **info: Any) -> None:
        self._try(lambda: self._inner(hook, *given, **info))

    def _inner(self, hook: str, *given: Any, **info: Any) -> None:
        getattr(self.inner, hook)(*given, **info)

    def _try(self, act: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            act()
        except Exception as error:  # whatever a tracker raises, the ledger goes on
            self.failed = True
            reason = str(error).strip() or type(error).__name__
            self.console.print(
                f"The tracker failed and is switched off, the sweep goes on: {reason.splitlines()[0]}",
                style="yellow",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )


def tracking(name: str, folder: Path, console: Console) -> Tracking:
    """Return Tune's callback of a tracker for the run in this folder, and print the command that shows its results.

    Raises:
        UserError: as `check`.
    """
    check(name)
    tracker = TRACKERS[name]
    console.print(f"Tracked by {name}: {tracker.viewer(folder)}", highlight=False, markup=False, soft_wrap=True)
    return Tracking(lambda: tracker.callback(folder), console)


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """Return a trial's finite measures, score and seconds among them, with the step as Ray's callbacks read it.

    Several trials in one process are one to Tune: of them it is only the best of their scores.
    """
    gan_steps, measured = None, {"score": result["score"]}
    if tune_dicts.runs_one_trial(result):
        (sent,) = tune_dicts.from_result(result)
        gan_steps, measured = sent.gan_steps, {**sent.metrics, "score": sent.score, "seconds": sent.seconds}
    finite = {name: one for name, one in measured.items() if isinstance(one, int | float) and math.isfinite(one)}
    iteration = tune.result.TRAINING_ITERATION
    return finite | {tune.result.TIMESTEPS_TOTAL: gan_steps, iteration: result.get(iteration, 1)}
