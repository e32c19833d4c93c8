"""A bank of several proxies: which images, the same for every trial, none of them one that a student is taught with."""

import numpy as np
import pytest

from degan_search.system.errors import UserError
from degan_search.trial.checks import check
from degan_search.trial.images import compared_on, held_out_images, load_proxy
from degan_search.trial.inputs import inputs_key
from degan_search.trial.named_files import fingerprints
from degan_search.trial.numbers import check_numbers

NAMES = ["digits", "glyphs/[K-Z]", "noise/uniform"]
SEVERAL = {"bank.proxies": NAMES}


def contents(images):
    return {image.tobytes() for image in images}


@pytest.fixture
def subsets(tmp_path):
    """Two overlapping subsets of one set of the user's own, of three classes."""
    images = np.random.default_rng(0).integers(0, 256, (120, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=np.repeat([0, 1, 2], 40))
    return [f"npz:{tmp_path / 'own.npz'}/[{some}]" for some in ("0,1", "1,2")]


def test_it_is_the_held_out_images_of_each_then_the_generated_ones_of_each(make_bank, tiny):
    inputs, trained, files = make_bank(SEVERAL)
    assert (trained, len(files)) == (2 * 3, 3)
    alone = [make_bank({"proxy": name, "bank.proxies": [name]})[0] for name in NAMES]
    assert [one.bank_proxy_images for one in alone] == [8, 8, 8]
    parts = [one.bank[:8] for one in alone] + [one.bank[8:] for one in alone]
    assert np.array_equal(inputs.bank, np.concatenate(parts))
    assert inputs.bank_proxy_images == 3 * 8
    assert make_bank(SEVERAL | {"proxy": "noise/uniform"})[1] == 0  # nothing is made twice


def test_it_is_the_same_for_a_trial_on_each(make_bank):
    made = [make_bank(SEVERAL | {"proxy": name})[0] for name in NAMES]
    assert len({inputs.bank.tobytes() for inputs in made}) == 1
    assert len({inputs.proxy.images.tobytes() for inputs in made}) == 3


def test_of_held_out_images_alone(make_bank):
    inputs, trained, _ = make_bank(SEVERAL | {"bank.generators": []})
    assert (trained, len(inputs.bank), inputs.bank_proxy_images) == (0, 24, 24)


def test_an_image_of_several_proxies_is_held_out_of_all_or_of_none(subsets, tiny):
    config = tiny({"proxy": subsets[0], "count": None, "bank.proxies": subsets, "bank.proxy_images": 2000})
    proxies = [load_proxy(one, None) for one in compared_on(config)]
    trained = [contents(proxy.images[proxy.train]) for proxy in proxies]
    held_out = [contents(proxy.images[proxy.held_out]) for proxy in proxies]
    assert held_out[0] & held_out[1]  # else this would test nothing
    assert not (held_out[0] | held_out[1]) & (trained[0] | trained[1])
    assert 8 <= len(held_out[0]) <= 28  # a fifth of 80, but for chance
    images = held_out_images(config, proxies)
    assert contents(images) == held_out[0] | held_out[1]
    assert len(images) == len(contents(images))
    few = held_out_images(tiny({"proxy": subsets[0], "bank.proxies": subsets, "bank.proxy_images": 3}), proxies)
    assert contents(few) < contents(images)
    assert 3 <= len(few) <= 6


def test_judges_give_held_out_images_alone(make_bank):
    alone, trained, _ = make_bank({})
    inputs, with_judges, _ = make_bank({"bank.judges": ["photos", "noise/uniform"]})
    assert with_judges == trained  # no GAN learns from a judge
    held_out, judged = alone.bank_proxy_images, inputs.bank_proxy_images - alone.bank_proxy_images
    assert judged > held_out  # two sets beside one
    assert len(inputs.bank) - len(alone.bank) == judged
    own = contents(inputs.proxy.images[inputs.proxy.train])
    assert not contents(inputs.bank[: inputs.bank_proxy_images]) & own


def test_which_proxies_is_part_of_what_trials_share(tiny):
    assert inputs_key(tiny(SEVERAL)) != inputs_key(tiny())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bank.proxies": ["digits", "digits"]}, "must not hold one twice"),
        ({"bank.judges": ["photos", "photos"]}, r"bank\.judges must not hold one twice"),
        (
            {"bank.judges": ["glyphs"], "teacher.dataset": "glyphs/[A-J]"},
            r"'glyphs' would bring true images",
        ),
        ({"bank.proxies": ["digits", "glyps"]}, "no image set or subset 'glyps'; did you mean glyphs"),
        (
            {"task": "incremental", "proxy": "digits/[5-9]", "bank.proxies": ["digits/[5-9]"]},
            r"bank\.proxies = \['digits/\[5-9\]'\], judges = \[\]: .* both must be \[\]",
        ),
    ],
)
def test_what_cannot_be_is_refused_early(change, said, tiny):
    with pytest.raises(UserError, match=said):
        check(tiny(change))


def test_its_numbers_are_checked_before_anything_is_loaded(tiny):
    with pytest.raises(UserError, match=r"count = 1700: digits has 1,437 images"):
        check_numbers(tiny({"bank.proxies": ["digits", "glyphs/[A]"], "count": 1700}), None)


def test_the_files_of_all_its_proxies_are_known_by_a_hash(subsets, tiny):
    assert list(fingerprints([tiny({"bank.proxies": ["digits", subsets[0]]})])) == [subsets[0].rpartition("/")[0]]
