"""A referee looks at the student after each epoch, and moves nothing."""

import pytest
import torch

from degan_search.settings.criteria import REFEREE, REFEREE_BEST
from degan_search.training.loop import progress_of
from degan_search.training.measures import accuracy, predict
from degan_search.training.resumable import read_state, state_bytes
from degan_search.trial import outcome as outcomes
from degan_search.trial.trial import Trial
from tests.trial.cut_trials import CASES

pytestmark = pytest.mark.usefixtures("few_images")
SEEN = [
    "proxy",
    "patience",
    "everything",
    "new degan",
    "new fixed_representation",
    "new, aligned",
    "new, dropout",
    "mosaic with dropout",
]


@pytest.fixture(scope="module")
def referee(true):
    """The accuracy on some true images; of the outputs 0 to 9, so also of students that learned new classes."""
    images, labels = torch.from_numpy(true.images[:50]), torch.from_numpy(true.labels[:50])
    return lambda student: accuracy(predict(student, images), labels)


def refereed(config, inputs, referee):
    """A new trial with a referee."""
    trial = Trial(config, inputs)
    trial.referee = referee
    return trial


def plain(event):
    """An event without the time that it took and without the referee's words, and these."""
    said = {name: value for name, value in event.metrics.items() if name in (REFEREE, REFEREE_BEST)}
    rest = {name: float(value).hex() for name, value in event.metrics.items() if name not in said}
    rest = {name: value for name, value in rest.items() if not name.endswith("seconds")}
    return (event.stage, event.step, event.of, event.gan_steps, event.class_agreement, rest), said


def finish(trial):
    """Run a trial to its end; return its events, what the referee said at each, and what the trial leaves."""
    events, said = zip(*map(plain, progress_of(trial)), strict=True)
    return list(events), list(said), outcomes.files(trial.outcome)


@pytest.mark.parametrize("case", SEEN)
def test_with_and_without_a_referee_everything_is_the_same_bit_for_bit(case, given, referee):
    config, inputs = given(CASES[case])
    without, nothing, files = finish(Trial(config, inputs))
    trial = refereed(config, inputs, referee)
    watched, said, same = finish(trial)
    assert watched == without
    assert same == files
    assert not any(nothing)
    epochs = [
        words for (stage, *_), words in zip(watched, said, strict=True) if stage in ("distill", "incremental", "mosaic")
    ]
    assert len(epochs) > 1
    assert all(words.keys() == {REFEREE} for words in epochs)
    assert sum(map(bool, said)) == len(epochs) + 1
    values = [words[REFEREE] for words in epochs]
    assert said[-1] == {REFEREE_BEST: max(values)}
    # The student that is kept is that of an epoch, of new classes that of the last.
    kept = referee(trial.outcome.student)
    assert kept == values[-1] if config.task == "incremental" else kept in values


@pytest.mark.parametrize("case", ["degan", "new fixed_representation"])
def test_a_cut_trial_goes_on_with_what_was_said_before(case, given, referee):
    config, inputs = given(CASES[case])
    words = iter([0.25, 0.75])
    trial = refereed(config, inputs, lambda student: next(words))
    said = []
    while len(said) < 2:
        if (event := trial.step()) and REFEREE in event.metrics:
            said.append(event.metrics[REFEREE])
    again = refereed(config, inputs, lambda student: 0.5)
    again.load_state_dict(read_state(state_bytes(trial.state_dict()), "the state"))
    later = list(progress_of(again))
    assert [event.metrics[REFEREE] for event in later if REFEREE in event.metrics] == [0.5, 0.5]
    assert later[-1].metrics[REFEREE_BEST] == 0.75
