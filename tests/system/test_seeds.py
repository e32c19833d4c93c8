"""Seed streams, and global generators left as they were."""

import pytest
import torch

from degan_search.system.seeds import generator, seeded, stream_seed


def test_streams_have_known_seeds():
    assert stream_seed(0, "gan", "noise") == 613162841112600663
    assert stream_seed(7) == 4359823973405836615


def test_streams_of_other_names_are_independent():
    names = [(), ("gan",), ("gan", "noise"), ("noise", "gan"), ("gan", "images"), ("gan", 1), ("gan", 11)]
    seeds = [stream_seed(seed, *name) for seed in range(20) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    one = torch.randn(4000, generator=generator(0, "gan", "noise"))
    for other in ((0, "gan", "images"), (1, "gan", "noise")):
        drawn = torch.randn(4000, generator=generator(*other))
        assert abs(torch.corrcoef(torch.stack([one, drawn]))[0, 1]) < 0.08  # five standard errors
    assert torch.equal(one, torch.randn(4000, generator=generator(0, "gan", "noise")))


def test_seeded_follows_its_stream_and_restores_the_global_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with seeded(3, "weights"):
        first = torch.rand(4)
        with seeded(3, "other"):
            inner = torch.rand(4)
        second = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    with seeded(3, "weights"):
        assert torch.equal(torch.rand(8), torch.cat([first, second]))
    assert not torch.equal(first, inner)
    with pytest.raises(ValueError, match="inside"), seeded(3):
        torch.rand(1)
        raise ValueError("inside")
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), before)
