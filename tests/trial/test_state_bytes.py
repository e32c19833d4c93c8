"""A trial's state as bytes: of plain values, and refused unless it is whole."""

import random

import numpy as np
import pytest
import torch

from degan_search.system.errors import UserError
from degan_search.training.resumable import MAGIC, read_state, state_bytes
from tests.trial.cut_trials import CASES, state_at

pytestmark = pytest.mark.usefixtures("few_images")


def leaves(state):
    if isinstance(state, dict):
        assert type(state) is dict
        for key, value in state.items():
            assert isinstance(key, (str, int))
            yield from leaves(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from leaves(value)
    else:
        yield state


@pytest.mark.parametrize(
    ("stage", "case"),
    [("gan", "everything"), ("probe at 2", "everything"), ("distill", "everything"), ("zskd", "zskd")],
)
def test_a_state_is_of_plain_things_and_no_larger_than_they_are(stage, case, given):
    _, state = state_at(stage, *given(CASES[case]))
    found = list(leaves(state))
    assert {type(leaf) for leaf in found} <= {torch.Tensor, int, float, bool, str, type(None)}
    tensors = [leaf for leaf in found if isinstance(leaf, torch.Tensor)]
    assert all(tensor.device.type == "cpu" and not tensor.requires_grad for tensor in tensors)
    held = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    assert held == sum(tensor.nbytes for tensor in tensors)  # no slice that keeps the whole
    assert len(state_bytes(state)) < held + 1000 * len(found)


def test_states_come_back_as_they_were():
    strided = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state = {"a": {0: [strided, None], "b": (1, 2.5, True)}, "c": "text", "nan": float("nan")}
    back = read_state(state_bytes(state), "it")
    assert list(back) == list(state)
    assert torch.equal(back["a"][0][0], strided)
    assert back["a"][0][0].stride() == strided.stride()
    assert (back["a"][0][1], back["a"]["b"], back["c"]) == (None, (1, 2.5, True), "text")
    assert np.isnan(back["nan"])


@pytest.fixture(scope="module")
def data(given):
    return state_bytes(state_at("distill", *given())[1])


def test_a_cut_file_is_refused(data):
    for length in [*range(0, len(data), -(-len(data) // 50)), len(MAGIC), len(MAGIC) + 32, len(data) - 1]:
        with pytest.raises(UserError, match=r"^runs/x/state is not "):
            read_state(data[:length], "runs/x/state")
    with pytest.raises(UserError, match="is not whole"):
        read_state(data + b"more", "it")


def test_a_flipped_bit_is_refused(data):
    rng = random.Random(0)
    places = [rng.randrange(8 * len(data)) for _ in range(150)] + [rng.randrange(8 * 100) for _ in range(50)]
    for place in places:
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(UserError, match=r"^it is not "):
            read_state(bytes(flipped), "it")


class Code:
    """Pickled, it prints when it is read."""

    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [[1, 2], "text", {"parts": Code()}])
def test_a_sealed_file_of_something_else_is_refused_and_no_code_is_run(content, capsys):
    with pytest.raises(UserError, match="it does not hold a trial's state"):
        read_state(state_bytes(content), "it")
    assert capsys.readouterr().out == ""
