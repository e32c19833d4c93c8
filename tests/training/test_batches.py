"""Batches of indices: each pass has every image once."""

from itertools import islice

import pytest
import torch

from degan_search.training.batches import IndexBatches


def rng():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("count", "size"), [(10, 3), (9, 3), (8, 4), (5, 8), (2, 2)])
def test_each_pass_covers_every_image_once(count, size):
    batches = IndexBatches(count, size, rng())
    per_pass = len([n for n in range(0, count, size) if min(size, count - n) > 1])
    orders = []
    for _ in range(3):
        seen = torch.cat(list(islice(batches, per_pass)))
        assert len(set(seen.tolist())) == len(seen)
        assert len(seen) == (count - 1 if count % size == 1 else count)
        orders.append(seen.tolist())
    if count > 2:
        assert orders[0] != orders[1]


def test_a_lone_last_image_is_left_out_but_for_a_lone_image():
    lengths = [len(batch) for batch in islice(IndexBatches(7, 3, rng()), 4)]
    assert lengths == [3, 3, 3, 3]
    assert [len(batch) for batch in islice(IndexBatches(8, 3, rng()), 3)] == [3, 3, 2]
    assert [batch.tolist() for batch in islice(IndexBatches(1, 3, rng()), 2)] == [[0], [0]]
    everything = torch.cat(list(islice(IndexBatches(7, 3, rng()), 20)))
    assert set(everything.tolist()) == set(range(7))  # no image is left out for ever


def test_batches_of_one_image_come_if_they_are_asked_for():
    batches = list(islice(IndexBatches(5, 1, rng()), 10))
    assert [len(batch) for batch in batches] == [1] * 10
    assert sorted(int(batch) for batch in batches[:5]) == sorted(int(batch) for batch in batches[5:]) == [0, 1, 2, 3, 4]
