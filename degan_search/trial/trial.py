"""One trial, start to end: a pure function of its configuration and inputs. It knows nothing of Ray or of ledgers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from degan_search.settings.criteria import REFEREE, REFEREE_BEST
from degan_search.settings.trial import TrialConfig
from degan_search.stages.mosaic import Mosaic
from degan_search.stages.zskd import ZskdSynthesis
from degan_search.system.device import Precision
from degan_search.training.resumable import snapshot
from degan_search.trial.context import TrialContext
from degan_search.trial.gan_stage import SAMPLES, GanStage, samples, statistics
from degan_search.trial.inputs import Inputs
from degan_search.trial.made import Made
from degan_search.trial.members import given_generator
from degan_search.trial.outcome import Event, Outcome
from degan_search.trial.student_stage import StudentStage, student_stage

Stage = GanStage | ZskdSynthesis | StudentStage
StageName = Literal["gan", "zskd", "student"]
Referee = Callable[[nn.Module], float]
"""Says how accurate a student is on test images, in [0, 1]."""
FIRST: dict[str, StageName] = {"generator": "gan", "zskd": "zskd"}
"""The stage that makes images, by what a method distils from; trials of other methods begin with the student."""


def run(
    config: TrialConfig,
    inputs: Inputs,
    report: Callable[[Event], None] | None = None,
    device: str = "cpu",
    members: Sequence[Mapping[str, Tensor]] = (),
) -> Outcome:
    """Run a trial to its end and return its outcome; `members` as of `Trial`.

    Raises:
        DivergedError: a loss is not finite, or the generator collapsed.
    """
    trial = Trial(config, inputs, device, members)
    while not trial.done:
        event = trial.step()
        if event is not None and report is not None:
            report(event)
    return trial.outcome


class Trial:
    """A trial, one step at a time: images are made, if the method makes any, then the student learns.

    It may be cut after any step and go on elsewhere: a new trial of the same configuration and inputs that loads its
    state has the same events from there on, bit for bit, as if it had not been cut. Its seconds go on, too.
    """

    def __init__(
        self, config: TrialConfig, inputs: Inputs, device: str = "cpu", members: Sequence[Mapping[str, Tensor]] = ()
    ) -> None:
        """Begin a trial; `members` are the states of the generators that `combine.members` names."""
        self.begun = time.monotonic()
        self.referee: Referee | None = None
        """Looks at the student after each epoch; what it says is reported and moves nothing."""
        self.common = TrialContext.of(config, inputs, device)
        self.stage_name: StageName | None = None
        self.stage: Stage | None = None
        """The current one; None before the first step."""
        self.made = Made(given_generator(self.common, members))
        """For the student to learn from."""
        self.gan_steps = 0
        """Steps of the GAN up to its last report."""
        self.metrics: dict[str, float] = self.common.student_size()
        self._outcome: Outcome | None = None

    @property
    def done(self) -> bool:
        """Whether there is an outcome."""
        return self._outcome is not None

    @property
    def outcome(self) -> Outcome:
        """What the trial gave, once it is done."""
        assert self._outcome is not None, "the trial is not done"
        return self._outcome

    @property
    def precision(self) -> Precision:
        """Of the training steps."""
        return self.common.context.precision

    @property
    def seconds(self) -> float:
        """Seconds since the trial began; after a cut, the time before it is counted too."""
        return time.monotonic() - self.begun

    def step(self) -> Event | None:
        """Do the next step of the current stage; when a stage is done, the next one begins.

        Returns what there is to report, if anything; the last event is of stage "done".

        Raises:
            DivergedError: a loss is not finite, or the generator collapsed.
        """
        if self.stage is None:
            stage = self.begin(_first(self.common, self.made.generator))
        elif not self.stage.done:
            stage = self.stage
        elif self.stage_name != "student":
            self._keep_what_was_made()
            stage = self.begin("student")
        else:
            return self._end()
        progress = stage.step()
        if isinstance(stage, GanStage | Mosaic):
            self.gan_steps = stage.steps_reported
        if progress is None:
            return None
        # At a rung trials compete by all of a search's goals.
        metrics = progress.metrics | (self.common.student_size() if "score" in progress.metrics else {})
        return Event(progress.stage, progress.step, progress.of, self.seconds, self.gan_steps, metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of what the trial needs to go on after its last step, for `resumable.state_bytes`."""
        state = {
            "about": self.common.about(),
            "seconds": self.seconds,
            "gan_steps": self.gan_steps,
            "metrics": self.metrics,
            "made": self.made.state_dict(),
            "stage_name": self.stage_name,
            "stage": None if self.stage is None else self.stage.state_dict(),
        }
        return snapshot(state)  # type: ignore[no-any-return]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, which stays as it is.

        Raises:
            UserError: it is of another configuration, teacher, version of torch or kind of device. The trial has not
                changed then.
        """
        self.common.refuse_another(state["about"])
        state = snapshot(state)  # optimisers go on with the very tensors that they are given
        self.begun = time.monotonic() - state["seconds"]
        self.gan_steps = state["gan_steps"]
        self.metrics = self.common.student_size() | state["metrics"]
        self.made = Made.of_state(self.common, state["made"])
        self._outcome = None
        self.stage_name, self.stage = None, None
        if state["stage_name"] is not None:
            self.begin(state["stage_name"]).load_state_dict(state["stage"])

    def begin(self, name: StageName) -> Stage:
        """Begin a stage and return it; the student learns from the generator or the images that are there."""
        self.stage_name, common = name, self.common
        if name == "gan":
            self.stage = GanStage(common)
        elif name == "zskd":
            shape = common.inputs.teacher.takes.shape
            self.stage = ZskdSynthesis(common.teacher, common.config.zskd, shape, common.context)
        else:
            self.stage = student_stage(common, self.made.generator, self.made.images)
            if self.referee:
                self.stage.watch = partial(_refereed, self.stage, self.referee, self.metrics)
        return self.stage

    def _keep_what_was_made(self) -> None:
        """Keep the generator or the images of the stage that is done; the rest of it is freed."""
        if isinstance(self.stage, GanStage):
            self.made = Made(self.stage.generator, early=self.stage.early)
            self.metrics |= self.stage.metrics
        elif isinstance(self.stage, ZskdSynthesis):
            self.made = Made(images=self.stage.images)
        self.metrics["gan_seconds"] = self.seconds

    def _end(self) -> Event:
        """Compare the student and set the outcome; returns the last event."""
        assert isinstance(self.stage, StudentStage), "the student's stage is the last"
        student, metrics = self.stage.student, self.metrics
        generator, measured = _trained_beside(self.stage, self.common) or (self.made.generator, {})
        metrics |= measured
        metrics["distill_steps"] = self.stage.steps
        metrics["distill_seconds"] = self.seconds - metrics.get("gan_seconds", 0.0)
        metrics["gan_steps"] = self.gan_steps
        compared = self.common.compare(student)
        metrics |= compared.measures
        metrics["seconds"] = self.seconds
        self._outcome = Outcome(metrics, student, class_agreement=compared.class_agreement, early=self.made.early)
        if self.made.images is not None:
            self._outcome.samples = self.made.images[:SAMPLES].cpu()
        if generator is not None:
            self._outcome.generator = generator.eval()
            self._outcome.samples = samples(self.common, generator)
        return Event("done", 1, 1, self.seconds, self.gan_steps, metrics, compared.class_agreement)


def _first(common: TrialContext, generator: nn.Module | None) -> StageName:
    return "student" if generator is not None else FIRST.get(common.method.source, "student")


def _trained_beside(stage: StudentStage, common: TrialContext) -> tuple[nn.Module, dict[str, float]] | None:
    """Return the generator that was trained with the student, and what is measured of it; None: there is none."""
    if not isinstance(stage, Mosaic):
        return None
    return stage.generator, stage.losses | statistics(common, stage.generator)


def _refereed(stage: StudentStage, referee: Referee, metrics: dict[str, float]) -> dict[str, float]:
    """Return what the referee says of the student as it is, and keep the best of it among the trial's metrics."""
    said = referee(stage.learned)
    metrics[REFEREE_BEST] = max(said, metrics.get(REFEREE_BEST, 0.0))
    return {REFEREE: said}
