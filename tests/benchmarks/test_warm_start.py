"""Points of other recorded tasks must go on being a better begin than none."""

import numpy as np

from benchmarks.warm_start import NAMES, WAYS, earlier, of_way


def test_a_search_begins_nearer_the_best_by_other_tasks():
    """After four trials, on most tasks."""
    none, begun = (
        np.array([of_way(WAYS[way], new, 2, 4)[:, 0, 0].mean() for new in NAMES]) for way in ("none", "earlier")
    )
    assert begun.mean() < 0.7 * none.mean()
    assert (begun < none).mean() > 0.7


def test_the_more_alike_task_comes_first_unless_likeness_does_not_count():
    runs = ["grid_cifar10", "bench_numerals"]
    points = earlier("bench_letters", runs)
    assert [one.run for one in points] == ["bench_numerals"] * 3
    assert points[0].alike > 0.8
    drawn = [earlier("bench_letters", runs, seed)[0].run for seed in range(4)]
    assert set(drawn) == set(runs)
