"""The default sampler must go on winning on the recorded tasks, in the manner of Vizier's comparators."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.samplers import ARMS, AT, KEY, priors, regrets, searched, tasks
from degan_search.search.space.schema import SearchConfig

TRIALS = 10
SEEDS = (0, 1)


def area(task, rows, by="score"):
    """The mean over trials of the regret of the best so far: low where a search is soon near the best."""
    values = task[by].to_numpy()
    best = np.maximum.accumulate(values[rows])
    best = np.pad(best, (0, TRIALS - len(best)), mode="edge")  # a search ends with the best there is
    return float(np.mean((values.max() - best) / (values.max() - values.mean())))


def areas(sampler):
    found = [
        [area(task, searched(task, ARMS[sampler], False, seed, "score", TRIALS)) for seed in SEEDS]
        for task in tasks().values()
    ]
    return np.array(found)


def test_the_default_is_sooner_near_the_best_than_random_search():
    default, chance = areas(SearchConfig().sampler), areas("random")
    assert default.mean() < 0.8 * chance.mean()
    assert (default.mean(1) < chance.mean(1)).mean() > 0.7  # of tasks


def test_tasks_hold_each_point_once():
    found = tasks()
    assert len(found) == 7
    for task in found.values():
        assert not task.duplicated(list(KEY)).any()
        assert task[["score", "accuracy"]].notna().all(axis=None)


@pytest.mark.parametrize("arm", ["grid", "random"])
def test_a_search_ends_with_the_best_there_is(arm):
    task = tasks()["grid_cifar10"]
    rows = searched(task, ARMS[arm], False, 0, "score", trials=60)
    assert rows[-1] == task["score"].argmax()
    assert (regrets(task, rows, "score")[-1] == 0).all()


def test_regret_is_read_after_so_many_trials():
    task = pd.DataFrame({"score": [0.0, 0.5, 1.0, 0.5], "accuracy": [0.1, 0.4, 0.3, 0.2]})
    found = regrets(task, [0, 0, 0, 1, 2], "score")
    assert found.shape == (len(AT), 2)
    assert found[0].tolist() == pytest.approx([1, -10])  # half of the best, and a trial at random has half too
    assert found[1].tolist() == [0, 0]


def test_priors_are_near_the_best_in_the_middle_and_at_the_worst():
    task = tasks()["grid_fashion_mnist"]
    order = [tuple(row) for row in task.sort_values("score")[["lambda_e", "lambda_d"]].to_numpy()]
    found = {name: tuple(prior.point.values()) for name, prior in priors(task, "score", 0).items()}
    assert found == {"good": order[-1], "mediocre": order[18], "adversarial": order[0]}
    assert len({tuple(priors(task, "score", seed)["good"].point.values()) for seed in range(10)}) > 3
