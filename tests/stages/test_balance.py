"""Generated images balanced by the teacher's class."""

from collections import Counter

import pytest
import torch
from torch import nn

from degan_search.settings.trial import DistillConfig
from degan_search.stages.balance import DRAWS, BalancedSource, balanced
from degan_search.stages.image_sources import CHUNK, GeneratorSource
from tests.stages.sources import rng


@pytest.mark.parametrize(
    ("labels", "count", "kept"),
    [
        ([0, 0, 0, 1, 0, 1], 4, [0, 1, 3, 5]),
        ([0, 0, 0, 1, 0, 0], 4, [0, 1, 2, 3]),  # the one of class 1, and more of class 0
        ([2, 2, 2, 2], 2, [0, 1]),  # one class alone
        ([4, 0, 4, 2, 0, 2], 3, [0, 1, 3]),
        ([1, 1, 0], 3, [0, 1, 2]),
    ],
)
def test_each_class_gives_as_many_as_there_are(labels, count, kept):
    assert sorted(balanced(torch.tensor(labels), count).tolist()) == kept


class Rare(nn.Module):
    """Sees class 1 in a seventh of noise, class 2 never, else class 0."""

    def forward(self, x):
        rare = x[:, 0, 0, 0] > 1.0676
        return torch.stack([~rare, rare, torch.zeros_like(rare)], dim=1).float()


def test_a_rare_class_is_as_frequent_as_the_others_and_no_image_is_there_twice():
    plain = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 1, 1)))
    config = DistillConfig(batch_size=8, pool=64)
    source = BalancedSource(plain, 3, Rare(), config)
    images, logits = source.make(CHUNK + 88, rng())
    assert images.shape == (CHUNK + 88, 3, 1, 1)
    seen = Counter(logits.argmax(1).tolist())
    assert torch.equal(logits, Rare()(images))
    same, none = source.make(CHUNK + 88, rng(), with_logits=False)
    assert torch.equal(same, images) and none.shape == (CHUNK + 88, 0)
    assert len({image.numpy().tobytes() for image in images}) == CHUNK + 88
    assert abs(seen[1] - seen[0]) < 40  # 300 each, as far as 4 draws for one reach
    few = Counter(GeneratorSource(plain, 3, Rare(), config).make(CHUNK + 88, rng())[1].argmax(1).tolist())
    assert few[1] < 130
    again, _ = source.make(CHUNK + 88, rng())
    assert torch.equal(again, images)
    drawn, _ = GeneratorSource(plain, 3, Rare(), config).make(DRAWS * CHUNK, rng())
    assert {image.numpy().tobytes() for image in images[:CHUNK]} <= {image.numpy().tobytes() for image in drawn}
