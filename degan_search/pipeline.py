"""One trial, start to end: a pure function of its configuration and inputs. It knows nothing of Ray or of ledgers."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from degan_search import bank as banks
from degan_search import capture, degan, incremental, runtime, zskd
from degan_search.batchnorm import statistics_distance
from degan_search.checkpoint import Parts, Values, snapshot
from degan_search.config import DistillConfig, TrialConfig, stable_hash
from degan_search.data.images import denormalise, split
from degan_search.distill import distill_steps
from degan_search.errors import UserError
from degan_search.fit import Progress
from degan_search.methods import METHODS, normalised
from degan_search.metrics import accuracy, coverage, effective_classes, mean_entropy, predict
from degan_search.networks.table import build_classifier
from degan_search.sources import AugmentedSource, GeneratorSource, ImageSource, MixedSource, Source
from degan_search.trial.images import banked, few_of_each, image_batch
from degan_search.trial.inputs import Inputs
from degan_search.trial.outcome import Event, Outcome
from degan_search.trial.shared import Pair

SAMPLES = 64
GAN_LOSSES = ("d_loss", "g_loss", "adversarial", "entropy", "diversity", "divergence", "bn_loss")
PLAIN = {"optimiser": "adam", "augment": False, "weight_decay": 0.0, "mix_proxy": 0.0}
"""How a probe distils, whatever the trial's profile: it looks at the generator alone."""
STATISTICS_IMAGES = 1024


def run(
    config: TrialConfig, inputs: Inputs, report: Callable[[Event], None] | None = None, device: str = "cpu"
) -> Outcome:
    """Run a trial to its end and return its outcome.

    Raises:
        DivergedError: a loss is not finite, or the generator collapsed.
    """
    stages = Trial(config, inputs, device)
    for event in stages:
        if report:
            report(event)
    return stages.outcome


class Trial:
    """A trial as an iterator over its events, so that a scheduler may stop it between two of them.

    It may also be cut there, and go on elsewhere: given the `state` of an earlier trial of the same configuration and
    inputs, the first event is the one after that at which the state was taken, and all that follows has the same bits
    as if nobody had cut it; seconds count on.

    Raises:
        UserError: the state is of another configuration, teacher, version of torch or kind of device.
    """

    outcome: Outcome

    def __init__(
        self, config: TrialConfig, inputs: Inputs, device: str = "cpu", state: dict[str, Any] | None = None
    ) -> None:
        self.config, self.inputs, self.device = normalised(config), inputs, device
        self.method = METHODS[config.method]
        self.begun = time.monotonic()
        self.gan_steps = 0
        self.metrics: dict[str, float] = {}
        self.parts = Parts()
        self._can_be_cut = self._at_event = False
        self.about = {
            "config": stable_hash(self.config),
            "teacher": inputs.teacher.hash,
            "torch": str(torch.__version__),
            "device": torch.device(device).type,
            "precision": (precision := runtime.precision_of(config.precision, device)),
        }
        self.precision, self.accelerate = precision, capture.chosen(config.accelerate, device)
        if state is not None:
            self._take(state)
        self.shared = inputs.on(device)
        self.teacher = self.shared.teacher
        # Folding its norms is faster, but their statistics are looked at where lambda_bn asks.
        self.fast_teacher = self.teacher if config.gan.lambda_bn else self.shared.fast_teacher
        images, logits = self.shared.bank
        if self.config.task == "incremental":
            proxy = inputs.proxy
            labels = self.shared.moved(proxy.labels_of(banked(self.config, proxy)))
            logits = incremental.bank_logits(logits, labels, len(proxy.classes))
        self.bank = banks.Bank(images, logits, inputs.bank_proxy_images)

    def _take(self, state: dict[str, Any]) -> None:
        for what, own in self.about.items():
            if state.get(what) != own:
                raise UserError(
                    f"the trial's saved state is of {what} {state.get(what)!r}, but now it is {own!r}; "
                    "start the trial anew, without its state"
                )
        self.begun -= state["seconds"]
        self.gan_steps, self.metrics = state["gan_steps"], dict(state["metrics"])
        self.parts = Parts(snapshot(state["parts"]))  # optimisers go on with the very tensors that they are given

    def state(self) -> dict[str, Any] | None:
        """Return a copy of all that the trial needs to go on after its last event, or None where it cannot be cut.

        That is between two events, inside a probe, before the first event, once it is done, and once its iterator is
        closed (as by the end of a `for` loop): take the state while it waits. It is for `checkpoint.state_bytes`:
        tensors on the CPU, numbers, text, lists and dicts. The trial stays as it is.
        """
        if not (self._can_be_cut and self._at_event):
            return None
        now = {"seconds": self._seconds(), "gan_steps": self.gan_steps, "metrics": self.metrics}
        copied: dict[str, Any] = snapshot(self.about | now | {"parts": self.parts.state_dict()})
        return copied

    def __iter__(self) -> Iterator[Event]:
        """Run the trial, yielding its events; `outcome` is there after the last."""
        return (event for event in self.steps() if event is not None)

    def steps(self) -> Iterator[Event | None]:
        """Run the trial, yielding its events, and None after the steps between them, so that others may take turns."""
        self._can_be_cut = True
        try:
            for event in self._stages():
                self._at_event = event is not None
                yield event
        finally:
            self._can_be_cut = False

    def _stages(self) -> Iterator[Event | None]:
        generator = made = None
        if self.method.generates:
            generator = yield from self._train_gan()
        if self.method.source == "zskd":
            made = yield from self._synthesise()
        parts = self.parts.add("student", Parts())
        if self.config.task == "incremental":
            student, stage = self._learn(generator, parts)
        else:
            student = self._student("student")
            source, distilling = self._source(generator, made), distill_config(self.config)
            stage = self._distil(student, source, distilling, "distill", parts)
        self.metrics.setdefault("distill_steps", 0)
        for progress in stage:
            if progress is not None:
                self.metrics["distill_steps"] = progress.step
            yield self._event(progress)
        self._can_be_cut = False
        yield self._end(student, generator, made)

    def _end(self, student: nn.Module, generator: nn.Module | None, made: Tensor | None = None) -> Event:
        """Set the outcome from the trained networks, or from the images `made`; returns the last event."""
        metrics = self.metrics
        metrics["distill_seconds"] = self._seconds() - metrics.get("gan_seconds", 0.0)
        metrics["gan_steps"] = self.gan_steps
        metrics |= self._compare(student)
        metrics["seconds"] = self._seconds()
        self.outcome = Outcome(metrics, student, samples=None if made is None else made[:SAMPLES].cpu())
        if generator is not None:
            self.outcome.generator = generator.eval()
            self.outcome.samples = self._samples(generator)
        return Event("done", 1, 1, self._seconds(), self.gan_steps, metrics)

    def _build_gan(self) -> degan.Gan:
        """Return the untrained GAN."""
        config, student = self.config, None
        if config.gan.lambda_s:
            student = self._student("rival"), config.distill
        return degan.build(
            config.gan,
            self.inputs.teacher.channels,
            self.fast_teacher,
            config.seed,
            self.device,
            self.method.adversarial,
            student,
            self.precision,
        )

    def _synthesise(self) -> Generator[Event | None, None, Tensor]:
        """Make images from the teacher alone; returns them."""
        made = Values(self.device, images=None)
        if not self.parts.saved("made"):
            config, channels = self.config, self.inputs.teacher.channels
            parts = self.parts.add("zskd", Parts())
            stage = zskd.synthesise(self.teacher, config.zskd, channels, config.seed, self.device, parts)
            made.images = yield from self._events(stage)
            self.metrics["gan_seconds"] = self._seconds()
            self.parts.drop("zskd")
        images: Tensor = self.parts.add("made", made).images
        return images

    def _events(self, stage: Generator[Progress, None, Tensor]) -> Generator[Event | None, None, Tensor]:
        """Yield the stage's progress as events; returns what the stage returns."""
        while True:
            try:
                yield self._event(next(stage))
            except StopIteration as end:
                images: Tensor = end.value
                return images

    def _learn(self, generator: nn.Module | None, parts: Parts) -> tuple[nn.Module, Iterator[Progress | None]]:
        """Return the teacher grown by the new classes, and the training of these (Table 3)."""
        config, proxy = self.config, self.inputs.proxy
        assert self.method.rule is not None, "check() has seen that the method is one of this task"
        student = incremental.expand(self.teacher, len(proxy.classes), config.seed)
        images, labels = (
            torch.from_numpy(part).to(self.device) for part in (proxy.images[proxy.train], proxy.labels_of(proxy.train))
        )
        recall: incremental.Recall | None = None
        if self.method.source == "proxy":
            recall = self._with_logits
        elif generator is not None:
            drawing = config.distill.model_copy(update={"batch_size": config.incremental.batch_size, "steps": None})
            source = self._generated(generator, drawing)
            rng = parts.stream("recall", runtime.generator(config.seed, "incremental", "recall", device=self.device))
            batches = source.batches(rng, parts.add("recalled", Parts()))

            def recall(new: Tensor) -> tuple[Tensor, Tensor]:
                images, logits = (part.float() for part in next(batches))
                mixed = round(config.distill.mix_proxy * len(new))
                if not mixed:
                    return images, logits
                return torch.cat([new[:mixed], images[mixed:]]), torch.cat([self.teacher(new[:mixed]), logits[mixed:]])

        return student, incremental.learn_steps(
            student,
            self.method.rule,
            images,
            labels,
            self.teacher,
            recall,
            config.incremental,
            config.seed,
            self.device,
            parts,
        )

    @torch.no_grad()
    def _with_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, self.teacher(images)

    def _train_gan(self) -> Generator[Event | None, None, nn.Module]:
        """Train the GAN; returns its generator, of which alone the state is kept from then on."""
        gan = self._build_gan()
        if not self.parts.saved("generator"):
            yield from self._gan_events(gan)
            self.metrics["gan_seconds"] = self._seconds()
            self.parts.drop("gan")
        return self.parts.add("generator", gan.generator)

    def _gan_events(self, gan: degan.Gan) -> Iterator[Event | None]:
        config, proxy = self.config, self.shared.proxy
        rungs, parts = config.probe.at, self.parts.add("gan", Parts())
        set_images, seed = self.inputs.proxy.set_images, config.seed
        for progress in degan.train_steps(gan, config.gan, proxy, set_images, seed, rungs, parts, self.accelerate):
            if progress is None:
                yield None
                continue
            self.gan_steps = progress.step
            score = (yield from self._probe(gan.generator, progress.step)) if progress.step in rungs else None
            yield self._gan_event(gan.generator, progress, score)

    def _gan_event(self, generator: nn.Module, progress: degan.GanProgress, score: float | None) -> Event:
        """Return the event of a step of the GAN, after which the generator may have been probed."""
        losses = {name: getattr(progress, name) for name in GAN_LOSSES}
        ended = progress.step == progress.of
        if ended or score is not None:
            losses |= self._statistics(generator)
        if ended:
            self.metrics |= losses
        if score is not None:
            losses["score"] = score
        return Event("gan", progress.step, progress.of, self._seconds(), progress.step, losses)

    def _probe(self, generator: nn.Module, step: int) -> Generator[Event | None, None, float]:
        """Distil a fresh student shortly from the generator as it stands; returns its score.

        Its own seed streams leave the GAN's training untouched.
        """
        settings = probe_config(self.config)
        stage = f"probe at {step}"
        student = self._student(stage)
        source = self._generated(generator, settings)
        self._can_be_cut = False
        for progress in self._distil(student, source, settings, stage):
            yield self._event(progress)
        self._can_be_cut = True
        return self._compare(student)["score"]

    def _distil(
        self, student: nn.Module, source: Source, config: DistillConfig, stage: str, parts: Parts | None = None
    ) -> Iterator[Progress | None]:
        seed, device = self.config.seed, self.device
        return distill_steps(student, source, config, seed, device, stage, parts, self.precision, self.accelerate)

    def _compare(self, student: nn.Module) -> dict[str, float]:
        """Return the bank's measures, and the objective among them as `score`."""
        measures = self.bank.compare(student)
        if self.inputs.oracle is not None:
            images, labels = (torch.from_numpy(part).to(self.device) for part in self.inputs.oracle)
            return measures | {"score": accuracy(predict(student, images), labels)}
        return measures | {"score": measures[self.config.objective]}

    def _student(self, stage: str) -> nn.Module:
        """Return an untrained student, its weights from this stage's stream."""
        student = self.config.student
        with runtime.seeded(self.config.seed, stage, "weights"):
            model = build_classifier(
                student.network, self.inputs.teacher.classes, student.width, self.inputs.teacher.channels
            )
        model.to(self.device).to(memory_format=torch.channels_last)
        return model

    def _source(self, generator: nn.Module | None, made: Tensor | None) -> Source:
        config = distill_config(self.config)
        source: Source
        if generator is not None:
            source = self._generated(generator, config)
            if config.mix_proxy:
                real = max(1, round(config.mix_proxy * config.batch_size))
                source = MixedSource(source, self._proxy_source(real, config), config.mix_proxy)
        elif self.method.source == "proxy":
            source = self._proxy_source(image_batch(self.config, self.inputs.proxy), config)
        else:
            (train, held_out), logits = self._images(made)
            source = ImageSource(train, held_out, self.teacher, min(config.batch_size, len(train)), config, logits)
        return AugmentedSource(source, self.fast_teacher, self.precision) if config.augment else source

    def _generated(self, generator: nn.Module, config: DistillConfig) -> GeneratorSource:
        return GeneratorSource(generator, self.config.gan.latent, self.fast_teacher, config, self.precision)

    def _proxy_source(self, batch: int, config: DistillConfig) -> ImageSource:
        return ImageSource(*self.shared.proxy_parts(), self.teacher, batch, config, self.shared.proxy_logits)

    def _images(self, made: Tensor | None) -> tuple[Pair, Pair | None]:
        """Return the images that are distilled from and those held out, of methods without generator or proxy.

        Beside them are the teacher's logits, where trials share the images.
        """
        inputs, config = self.inputs, self.config
        if self.method.source == "true":
            return self.shared.true_parts(), self.shared.true_logits
        if made is None:
            train, labels = inputs.true_train, inputs.true_labels
            assert train is not None and labels is not None, "prepare() gives them for this method"
            made = torch.from_numpy(train[few_of_each(labels, config.shots, config.seed)])
        learned, kept = split(len(made), config.teacher.holdout, config.seed)
        return (made[learned].to(self.device), made[kept].to(self.device)), None

    def _statistics(self, generator: nn.Module) -> dict[str, float]:
        """Describe the generated classes; for analysis only: the weights optimise these, so nothing selects on them."""
        source = GeneratorSource(generator, self.config.gan.latent, self.teacher)
        rng = runtime.generator(self.config.seed, "statistics", device=self.device)
        images, logits = source.make(STATISTICS_IMAGES, rng)
        return {
            "effective_classes": effective_classes(logits),
            "coverage": coverage(logits),
            "mean_entropy": mean_entropy(logits),
            "bn_distance": statistics_distance(self.teacher, images),
        }

    def _samples(self, generator: nn.Module) -> Tensor:
        source = GeneratorSource(generator, self.config.gan.latent, self.teacher)
        rng = runtime.generator(self.config.seed, "samples", device=self.device)
        return denormalise(source.make(SAMPLES, rng)[0]).cpu()

    def _event(self, progress: Progress | None) -> Event | None:
        """Return the event of a stage's progress, if there is any."""
        if progress is None:
            return None
        return Event(progress.stage, progress.step, progress.of, self._seconds(), self.gan_steps)

    def _seconds(self) -> float:
        return time.monotonic() - self.begun


def distill_config(config: TrialConfig) -> DistillConfig:
    """Return how this trial distils: as from a generator, or as the released code does from images."""
    method = METHODS[config.method]
    return config.distill if method.generates or method.matched else config.distill_images


def probe_config(config: TrialConfig) -> DistillConfig:
    """Return how this trial's probes distil."""
    probe = config.probe
    own = {"steps": probe.steps, "batch_size": probe.batch_size, "lr": probe.lr, "steps_per_epoch": probe.steps}
    return config.distill.model_copy(update=PLAIN | own)
