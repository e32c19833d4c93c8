"""Weights as trainings save them: nested, wrapped, in half precision, under any suffix; and why some do not fit."""

import argparse
from collections import Counter, OrderedDict
from decimal import Decimal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from degan_search.networks.table import build_classifier
from degan_search.stages import teacher as teachers
from degan_search.stages.checkpoint_state import find_state, nearest, plain_names, state_of_classes
from degan_search.system.errors import NoticeWarning, UserError
from degan_search.training.measures import predict


@pytest.fixture(scope="module")
def state(teacher):
    return {name: value.contiguous() for name, value in teacher.model().state_dict().items()}


def obtained(path, tiny, true, **changes):
    return teachers.obtain(tiny({"teacher": {"path": str(path), **changes}}).teacher, true, path.parent / "cache")


def put(prefix, state):
    return OrderedDict((f"{prefix}{name}", value) for name, value in state.items())


OLD = {"_use_new_zipfile_serialization": False}
"""As torch.save wrote before version 1.6."""


def with_numpy(state):
    """What a training saves that counts with numpy."""
    figures = {"best_acc": np.float64(0.9), "epoch": np.int64(3), "done": np.bool_(True), "net": np.str_("lenet")}
    return {"state_dict": state, **figures, "losses": np.array([2.0, 1.0]), "none": np.array([]), "k": np.eye(3).T}


def training(state):
    """What a training saves beside the weights."""
    optimiser = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 0.1}]}
    scheduler = {"milestones": Counter([10, 20]), "last_epoch": 3}
    return {"epoch": 3, "best": 0.9, "optimizer": optimiser, "lr_scheduler": scheduler, "name": "net"}


FORMS = {
    "plain.pt": lambda state: state,
    "epoch.pth.tar": lambda state: {"state_dict": state, **training(state)},
    "last.ckpt": lambda state: {"state_dict": put("model.", state), **training(state)},
    "pytorch_model.bin": lambda state: state,
    "no_suffix": lambda state: {"model": state},
    "nested.pt": lambda state: {"model_state_dict": {"net": state}},
    "ema.pt": lambda state: {"ema": put("module.", state) | {"n_averaged": torch.tensor(4)}, **training(state)},
    "other_key.pt": lambda state: {"classifier_weights": state, **training(state)},
    "arguments.pt": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, size=torch.Size([3, 4]))},
    "parallel.pt": lambda state: put("module.", state),
    "compiled.pt": lambda state: put("_orig_mod.", state),
    "both.pt": lambda state: {"state_dict": put("module._orig_mod.", state)},
    "numpy.pt": with_numpy,
    "old.pth.tar": lambda state: {"state_dict": put("module.", state), **training(state)},
    "old_numpy.t7": with_numpy,
}


@pytest.mark.parametrize("name", FORMS)
def test_checkpoints_are_taken(name, state, tiny, true, teacher, tmp_path, recwarn):
    torch.save(FORMS[name](state), tmp_path / name, **(OLD if name.startswith("old") else {}))
    mine = obtained(tmp_path / name, tiny, true)
    images = torch.from_numpy(true.images)
    assert torch.equal(predict(mine.model(), images), predict(teacher.model(), images))
    assert mine.holdout_accuracy == teacher.holdout_accuracy
    assert not [told for told in recwarn if told.category is NoticeWarning]


@pytest.mark.parametrize(("save", "name"), [(save_file, "weights.bin"), (torch.save, "weights.safetensors")])
def test_a_file_is_what_it_holds_and_not_what_it_is_called(save, name, state, tiny, true, teacher, tmp_path):
    save(dict(state), tmp_path / name)
    assert obtained(tmp_path / name, tiny, true).holdout_accuracy == teacher.holdout_accuracy


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_as_float32(kind, state, tiny, true, teacher, tmp_path):
    torch.save({"state_dict": {name: value.to(kind) for name, value in state.items()}}, tmp_path / "half.pt")
    mine = obtained(tmp_path / "half.pt", tiny, true)
    for name, value in mine.model().state_dict().items():
        assert torch.equal(value, state[name].to(kind).float())


def test_torchscript_in_half_precision_is_taken(state, tiny, true, teacher, tmp_path):
    model = build_classifier("lenet", 10, 4).eval()
    model.load_state_dict(state)
    torch.jit.script(model.half()).save(str(tmp_path / "half.pt"))
    mine = obtained(tmp_path / "half.pt", tiny, true, trusted=True)
    assert mine.holdout_accuracy == pytest.approx(teacher.holdout_accuracy, abs=0.02)


def test_of_several_that_fit_the_usual_one_is_taken_and_said(state, tiny, true, teacher, tmp_path):
    other = {name: value + 1 for name, value in state.items()}
    torch.save({"model_ema": other, "model": state}, tmp_path / "two.pt")
    with pytest.warns(NoticeWarning, match="several networks: 'model' is taken, not 'model_ema'") as told:
        mine = obtained(tmp_path / "two.pt", tiny, true)
    assert len(told) == 1
    assert mine.holdout_accuracy == teacher.holdout_accuracy
    torch.save({"first": other, "second": state}, tmp_path / "two.pt")
    with pytest.raises(UserError, match="several networks that fit: 'second', 'first'; save the one meant alone"):
        obtained(tmp_path / "two.pt", tiny, true)


def test_the_same_tensors_under_other_names_are_taken_in_their_order_and_said(state, tiny, true, teacher, tmp_path):
    def renamed(name):
        return f"part{name.replace('.', '_').rpartition('_')[0]}.{name.rpartition('.')[2]}"

    torch.save({renamed(name): value for name, value in state.items()}, tmp_path / "other.pt")
    with pytest.warns(NoticeWarning, match=r"has other names than the network \(part0\.weight \.\.\. part\w+\.bias\)"):
        mine = obtained(tmp_path / "other.pt", tiny, true)
    images = torch.from_numpy(true.images)
    assert torch.equal(predict(mine.model(), images), predict(teacher.model(), images))
    swapped = {renamed(name).replace("weight", "kernel"): value for name, value in state.items()}
    torch.save(swapped, tmp_path / "kinds.pt")
    with pytest.raises(UserError, match="does not fit"):
        obtained(tmp_path / "kinds.pt", tiny, true)


def test_of_several_the_one_that_fits_is_taken(state, tiny, true, teacher, tmp_path):
    torch.save({"state_dict": build_classifier("lenet", 7, 3).state_dict(), "teacher": state}, tmp_path / "two.pt")
    assert obtained(tmp_path / "two.pt", tiny, true).holdout_accuracy == teacher.holdout_accuracy


def test_wrappers_within_a_network_are_left_out():
    wanted = {"features.0.weight": torch.zeros(2), "classifier.weight": torch.zeros(3)}
    state = {"features.module.0.weight": torch.ones(2), "classifier.weight": torch.ones(3)}
    assert plain_names(state, wanted).keys() == wanted.keys()
    own = {"module.weight": torch.zeros(2)}  # the network's own name
    assert plain_names(dict(own), own).keys() == own.keys()
    clash = {"a.module.b": torch.zeros(1), "a.b": torch.zeros(1)}
    assert plain_names(clash, {"a.b": torch.zeros(1)}) is clash


def test_a_dictionary_that_holds_itself_is_read_once():
    loop = {"epoch": 3}
    loop["self"] = loop
    with pytest.raises(UserError, match="holds no plain state dict, tensors by name; it has epoch, self"):
        find_state(loop, {}, "x")


MISFITS = {
    "missing": (lambda state: {n: v for n, v in state.items() if n != "0.bias"}, "missing: 0.bias; no network"),
    "unexpected": (lambda state: state | {"12.bias": torch.zeros(3)}, "unexpected: 12.bias; no network"),
    "both": (
        lambda state: {(f"f.{n}_g" if n.startswith("0.") else n): v for n, v in state.items()},
        "missing: 0.weight, 0.bias; unexpected: f.0.weight_g, f.0.bias_g; no network of the table has these tensors",
    ),
    "wider": (
        lambda _: {"state_dict": put("module.", build_classifier("lenet", 7, 8).state_dict())},
        "other shapes: 0.weight is 8x1x5x5, not 4x1x5x5, 0.bias is 8, not 4, ",
    ),
    "wider_fits": (
        lambda _: {"state_dict": put("module.", build_classifier("lenet", 7, 8).state_dict())},
        "and 2 more; it fits teacher.network 'lenet' with 7 classes and teacher.width 8",
    ),
    "another": (
        lambda _: build_classifier("resnet32", 20, 4).state_dict(),
        "it fits teacher.network 'resnet32' with 20 classes and teacher.width 4",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_misfit_says_what_is_missing_unexpected_and_of_other_shape(name, state, tiny, true, tmp_path):
    change, said = MISFITS[name]
    torch.save(change(dict(state)), tmp_path / "mine.pt")
    with pytest.raises(UserError) as error:
        obtained(tmp_path / "mine.pt", tiny, true)
    text = str(error.value)
    assert said in text
    assert text.startswith(f"teacher.path '{tmp_path / 'mine.pt'}'")
    assert "does not fit network 'lenet' with 10 classes and width 4: " in text
    assert "\n" not in text


def test_a_path_is_said_whole(tiny, true, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"teacher.path '{tmp_path}/none.pt' cannot be opened: No such file"):
        teachers.obtain(tiny({"teacher": {"path": "none.pt"}}).teacher, true, tmp_path)


def test_other_values_are_refused_with_what_to_do(state, tiny, true, tmp_path):
    torch.save({"state_dict": dict(state), "best": Decimal("0.9")}, tmp_path / "mine.pt")
    with pytest.raises(UserError, match=r"write one by torch.save\(model.state_dict\(\), FILE\)"):
        obtained(tmp_path / "mine.pt", tiny, true)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("lenet", 4),
        ("resnet32", 4),
        ("torchvision/mobilenet_v3_small?width_mult=0.1", None),
        ("timm/test_resnet", None),
    ],
)
def test_the_head_tells_the_classes(name, width):
    state = build_classifier(name, 7, width).state_dict()
    for loaded in (state, {"state_dict": put("module.", state), "epoch": 3}):
        assert state_of_classes(loaded, name, width) == 7


def test_a_file_without_a_head_says_that_classes_are_missing():
    state = build_classifier("lenet", 7, 4).state_dict()
    for loaded, said in (
        ({key: value for key, value in state.items() if key != "11.bias"}, "no head of its kind"),
        ({"a": state, "b": build_classifier("lenet", 9, 4).state_dict()}, "heads of 7, 9 classes"),
    ):
        with pytest.raises(UserError, match=said):
            state_of_classes(loaded, "lenet", 4)


@pytest.mark.parametrize("name", ["torchvision/shufflenet_v2_x1_0", "torchvision/squeezenet1_1"])
def test_the_nearest_network_may_be_torchvisions(name):
    assert nearest(put("module.", build_classifier(name, 7).state_dict())) == (
        f"it fits teacher.network {name!r} with 7 classes"
    )
