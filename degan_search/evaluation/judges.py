"""The labelled images that networks are scored on, apart from a search: held-out ones, a user's few, test ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from degan_search.data.synthetic import Split
from degan_search.settings.trial import TeacherConfig, TrialConfig
from degan_search.stages import teacher as teachers
from degan_search.stages import teacher_file
from degan_search.stages.true_images import check_images, true_images
from degan_search.training.measures import predict
from degan_search.trial.images import Proxy, banked, load_proxy


@dataclass(frozen=True, eq=False)
class Judge:
    """Some true images, on which networks are scored."""

    images: np.ndarray
    labels: np.ndarray

    def right(self, model: nn.Module) -> Bool[Tensor, " n"]:
        """Return for each image whether its largest logit is the label's."""
        return predict(model, torch.tensor(self.images)).argmax(dim=1) == torch.tensor(self.labels)


class Panel:
    """A teacher's judges: held-out images, and test images, which are read when a final run asks for them."""

    def __init__(self, config: TeacherConfig, data_dir: Path | None, cache: Path) -> None:
        self.config, self.data_dir = config, data_dir
        self.true = true_images(config, data_dir)
        found = teachers.obtain(teacher_file.recorded(config), self.true, cache)
        self.classes, self.teacher = found.classes, found.model()
        few = check_images(config, data_dir, found.class_names)
        self.check = few and Judge(few.images, few.labels)
        self.test: Judge | None = None
        self.accuracies: dict[str, float] = {}
        self.proxies: dict[tuple[str, int | None, Split], Proxy] = {}

    def outputs(self, config: TrialConfig) -> int:
        """Return how many classes a trial's student knows."""
        return self.classes + (len(self._proxy(config, "train").classes) if config.task == "incremental" else 0)

    def teacher_accuracy(self, name: str) -> float:
        """Return the teacher's own accuracy on the true images, which is computed once."""
        if name not in self.accuracies:
            self.accuracies[name] = self._true(name).right(self.teacher).double().mean().item()
        return self.accuracies[name]

    def judges(self, config: TrialConfig, name: str) -> list[Judge]:
        """Return the judge on these images; of the task `incremental` also that on the new classes' true ones."""
        judges = [self._true(name)]
        if config.task == "incremental" and name != "check":
            proxy = self._proxy(config, "test" if name == "test" else "train")
            kept = np.arange(len(proxy.images)) if name == "test" else proxy.held_out[len(banked(config, proxy)) :]
            judges.append(Judge(proxy.images[kept], self.classes + proxy.labels_of(kept)))
        return judges

    def _true(self, name: str) -> Judge:
        if name == "check" and self.check:
            return self.check
        assert self.true is not None, "without true images nothing is scored on them"
        if name == "oracle":
            return Judge(self.true.images[self.true.held_out], self.true.labels[self.true.held_out])
        if self.test is None:
            test = true_images(self.config, self.data_dir, "test")
            assert test is not None, "a set has both splits"
            self.test = Judge(test.images, test.labels)
        return self.test

    def _proxy(self, config: TrialConfig, part: Split) -> Proxy:
        key = config.proxy, config.count, part
        if key not in self.proxies:
            self.proxies[key] = load_proxy(config, self.data_dir, part)
        return self.proxies[key]


class Panels(dict[TeacherConfig, Panel]):
    """The panel of each teacher, made when it is first asked for."""

    def __init__(self, data_dir: Path | None, cache: Path) -> None:
        super().__init__()
        self.data_dir, self.cache = data_dir, cache

    def __missing__(self, config: TeacherConfig) -> Panel:
        self[config] = Panel(config, self.data_dir, self.cache)
        return self[config]
