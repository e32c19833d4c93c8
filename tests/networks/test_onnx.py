"""Networks in ONNX files, as torch's two exporters write them, whole and broken."""

import copy
import logging
import sys
import warnings

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from degan_search.networks import of_onnx
from degan_search.networks.names import parts
from degan_search.networks.table import build_classifier, check_name, default_input, has_weights, own_classes
from degan_search.system.errors import UserError


class Attention(nn.Module):
    """With a batch in its shapes that cannot be left open, GELU and LayerNorm."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Pooled(nn.Module):
    """A reduction, shared weights, a split and a flatten."""

    def __init__(self):
        super().__init__()
        self.first, self.same = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6 * 4 + 6, 4)

    def forward(self, x):
        x = self.norm(self.same(self.same(self.first(x).relu()))).relu()
        left, right = x.chunk(2, dim=1)
        return self.head(
            torch.cat(
                [nn.functional.adaptive_avg_pool2d(x, 2).flatten(1), (left * right).mean((2, 3)), right.mean((2, 3))], 1
            )
        )


def export(model, file, how):
    size = (3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "static":
            torch.onnx.export(model, (torch.rand(1, *size),), file, verbose=False)
        elif how == "dynamic":
            shapes = ({0: torch.export.Dim("n")},)
            torch.onnx.export(model, (torch.rand(2, *size),), file, dynamic_shapes=shapes, verbose=False)
        else:
            torch.onnx.export(model, (torch.rand(1, *size),), file, dynamo=False)


@pytest.fixture(scope="module", autouse=True)
def quiet_exporter():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    """A network, and an ONNX file of it."""
    torch.manual_seed(0)
    model, file = Pooled().eval(), tmp_path_factory.mktemp("onnx") / "pooled.onnx"
    export(model, file, "static")
    return model, file


@pytest.mark.parametrize("how", ["static", "dynamic", "before"])
@pytest.mark.parametrize("network", [Pooled, Attention])
def test_a_file_is_the_network_that_was_exported(tmp_path, network, how):
    torch.manual_seed(0)
    model, file = network().eval(), tmp_path / "net.onnx"
    export(model, file, how)
    name = str(file)
    assert (default_input(name).shape, own_classes(name), has_weights(name)) == ((3, 16, 16), 4, True)
    check_name(name)
    before = torch.get_rng_state()
    read = build_classifier(name, 4)
    assert torch.equal(before, torch.get_rng_state())
    assert read.training
    images = torch.rand(5, 3, 16, 16, requires_grad=True)
    for one in (read.eval(), copy.deepcopy(read)):
        torch.testing.assert_close(one(images), model(images), rtol=1e-3, atol=1e-5)
    (slope,) = torch.autograd.grad(read(images).logsumexp(1).sum(), images)
    (true,) = torch.autograd.grad(model(images).logsumexp(1).sum(), images)
    torch.testing.assert_close(slope, true, rtol=1e-3, atol=1e-5)
    assert sum(p.requires_grad for p in read.parameters()) >= 4


def test_what_does_not_fit_is_refused(pooled):
    _, file = pooled
    for arguments, said in (((5,), "has 4 outputs, not 5"), ((4, None, 1), "3 channels, not 1"), ((4, 3), "no width")):
        with pytest.raises(UserError, match=said):
            build_classifier(str(file), *arguments)
    with pytest.raises(UserError, match="16 height, not 32"):
        build_classifier(str(file), 4, size=(32, 16))
    with pytest.raises(UserError, match="takes no options"):
        build_classifier(f"{file}?a=3", 4)


def small(nodes, weights=(), taken=("n", 3, 8, 8), given=("n", 4), inputs=1):
    """A model of these nodes from `x` to `y`."""
    images = [helper.make_tensor_value_info(f"x{i or ''}", TensorProto.FLOAT, taken) for i in range(inputs)]
    logits = helper.make_tensor_value_info("y", TensorProto.FLOAT, given)
    graph = helper.make_graph(nodes, "g", images, [logits], initializer=list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def flat(**changes):
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"])]
    return small(nodes, [helper.make_tensor("w", TensorProto.FLOAT, (192, 4), [0.1] * 768)], **changes)


def outside(location):
    model = flat()
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", str(4 * 768))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return model


def test_weights_beside_the_file_are_read_and_others_are_not(tmp_path):
    file = tmp_path / "in" / "net.onnx"
    file.parent.mkdir()
    for place in (tmp_path, file.parent):
        (place / "net.data").write_bytes(torch.ones(768).numpy().tobytes())
    onnx.save(outside("net.data"), file)
    assert build_classifier(str(file), 4).eval()(torch.ones(1, 3, 8, 8)).tolist() == [[192.0] * 4]
    assert of_onnx.files(parts(str(file))) == [file, file.parent / "net.data"]
    (file.parent / "link").symlink_to(tmp_path / "net.data")
    for place in ("../net.data", str(tmp_path / "net.data"), "link", ".."):
        onnx.save(outside(place), file)
        with pytest.raises(UserError, match="no file beside it"):
            build_classifier(str(file), 4)
    onnx.save(outside("gone"), file)
    with pytest.raises(UserError, match="'gone', which is not beside it"):
        build_classifier(str(file), 4)


def short():
    model = flat()
    del model.graph.initializer[0].float_data[100:]
    return model


BAD = {
    "operators": (
        lambda: small([helper.make_node("Hardmax", ["x"], ["a"]), helper.make_node("Det", ["a"], ["y"])]),
        "operators that onnx2torch does not know, in ONNX 17: Det, Hardmax",
    ),
    "domain": (lambda: small([helper.make_node("Mine", ["x"], ["y"], domain="of.me")]), r"not know.*of\.me\.Mine"),
    "inputs": (lambda: flat(inputs=2), "2 inputs and 1 outputs"),
    "no_images": (lambda: flat(taken=("n", 192)), "no images"),
    "no_classifier": (
        lambda: small([helper.make_node("Relu", ["x"], ["y"])], given=("n", 3, 8, 8)),
        "a classifier gives",
    ),
    "large": (lambda: flat(taken=("n", 3, 8, 10**6)), "at most 2048 pixels"),
    "channels": (lambda: flat(taken=("n", 1, 8, 8)), "does not work on 3 images"),
    "no_gradient": (
        lambda: small(
            [
                helper.make_node("Flatten", ["x"], ["f"]),
                helper.make_node("Relu", ["f"], ["r"]),
                helper.make_node("Equal", ["f", "r"], ["e"]),
                helper.make_node("Cast", ["e"], ["y"], to=TensorProto.FLOAT),
            ],
            given=("n", 192),
        ),
        "gives no gradient",
    ),
    "short": (short, "cannot be turned"),
    "other_images": (
        lambda: small(
            [
                helper.make_node("Flatten", ["x"], ["f"]),
                helper.make_node("ReduceMean", ["f"], ["m"], axes=[0], keepdims=1),
                helper.make_node("Sub", ["f", "m"], ["y"]),
            ],
            given=("n", 192),
        ),
        "otherwise among others",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_cannot_be_used_are_refused_in_one_line(tmp_path, name):
    make, said = BAD[name]
    file = tmp_path / f"{name}.onnx"
    file.write_bytes(make().SerializeToString())
    with pytest.raises(UserError, match=said) as caught:
        check_name(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x08\x07", b"PK\3\4" + bytes(100), bytes(1000), b"\xff" * 100])
def test_bytes_that_are_no_onnx(tmp_path, content):
    file = tmp_path / "net.onnx"
    file.write_bytes(content)
    with pytest.raises(UserError, match="is no ONNX file"):
        build_classifier(str(file), 4)


def test_a_file_cut_short(pooled, tmp_path):
    data = pooled[1].read_bytes()
    for part in range(1, 8):
        file = tmp_path / f"{part}.onnx"
        file.write_bytes(data[: len(data) * part // 8])
        with pytest.raises(UserError):
            build_classifier(str(file), 4, channels=3, size=(16, 16))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none\.onnx' cannot be opened: No such file"):
        build_classifier(f"{tmp_path}/none.onnx", 4)


def test_a_file_that_ray_brought_is_found(pooled, tmp_path, monkeypatch):
    folder = tmp_path / of_onnx.BROUGHT
    folder.mkdir()
    for file in of_onnx.files(parts(str(pooled[1]))):
        (folder / file.name).write_bytes(file.read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(build_classifier("/elsewhere/pooled.onnx", 4), nn.Module)


def test_without_onnx2torch_the_way_to_install_it_is_named(pooled, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    with pytest.raises(UserError, match=r"pip install 'degan-search\[onnx\]'"):
        build_classifier(str(pooled[1]), 4)
