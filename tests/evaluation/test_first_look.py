"""A first look at a teacher and proxies: what it sees, and what looks wrong."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from degan_search.data import proxies
from degan_search.data.images import normalise
from degan_search.evaluation.first_look import BYTES, GIVEN, doubts, look
from degan_search.networks.front import Classifier
from degan_search.networks.table import build_classifier
from degan_search.networks.takes import teacher_input
from degan_search.settings.trial import TeacherConfig
from degan_search.stages.teacher_file import read_network
from degan_search.system.errors import UserError

SIZE = 16


@pytest.fixture
def teacher(tmp_path):
    """Write a small teacher whose BatchNorm layers remember photographs, given to it as `normalise` says."""

    def write(normalise_as, bias=None, scale=1.0):
        config = TeacherConfig(
            network="resnet18",
            width=4,
            path=str(tmp_path / "w.pt"),
            input={"size": SIZE, **normalise_as},
            classes=3,
        )
        with torch.random.fork_rng():
            torch.manual_seed(2)  # it sees three classes in photographs, one in noise
            network = build_classifier("resnet18", 3, 4, 3, (SIZE, SIZE))
            images = torch.from_numpy(proxies.load("photos", count=300, size=(SIZE, SIZE)).images)
            model = Classifier(network, teacher_input(config))
            for layer in network.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.momentum = 1.0  # nothing of its first statistics stays
            with torch.no_grad():
                model(normalise(images))
                last = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)][-1]
                last.weight.mul_(scale)
                if bias is not None:
                    last.bias.copy_(torch.tensor(bias))
        torch.save(network.state_dict(), config.path)
        return config

    return write


def found_ways(config):
    found = look(config, ["photos"], images=200)
    return {way.name: way for way in found.ways}, doubts(found)


class TestLook:
    """What the teacher sees."""

    def test_the_side_of_a_unions_images_is_known_if_all_parts_have_it(self, teacher):
        names = ["photos@64", "glyphs@64/[A]+photos@64", "glyphs/[A]+photos@64"]
        seen = look(teacher({"normalise": "unit"}), names, images=100).seen
        assert {one.proxy: one.own_side for one in seen} == dict(zip(names, [64, 64, None], strict=True))

    def test_counts_and_shares(self, teacher):
        found = look(teacher({}, scale=30.0), ["noise/uniform", "photos"], images=100)
        assert found.teacher.class_names == ("0", "1", "2")
        network = read_network(found.teacher.config, found.teacher.data, ".pt", 3)
        assert found.parameters == sum(weight.numel() for weight in network.parameters())
        assert [one.proxy for one in found.seen] == ["photos", "noise/uniform"]  # the teacher sees more in photographs
        for one in found.seen:
            assert one.looked_at == 100
            assert one.shares.sum() == pytest.approx(1)
            assert 1 / 3 <= one.confidence <= 1
            assert 1 <= one.measures["effective_classes"] <= 3
        assert {one.proxy: one.images for one in found.seen} == {"photos": 10_000, "noise/uniform": 50_000}

    @pytest.mark.parametrize(
        ("names", "says"),
        [
            ([], "no proxy given"),
            (["photos", "photos"], "given twice"),
            (["fotos"], "did you mean photos"),
            (["folder:nowhere"], "is not a folder"),
        ],
    )
    def test_refuses(self, names, says, teacher):
        with pytest.raises(UserError, match=says):
            look(teacher({}), names)


class TestDoubts:
    """What looks wrong."""

    @pytest.mark.parametrize("right", ["signed", "unit", "imagenet"])
    @pytest.mark.parametrize("given", ["signed", "unit", "imagenet"])
    def test_of_the_normalisation(self, right, given, teacher):
        config = teacher({"normalise": right})
        config = config.model_copy(update={"input": config.input.model_copy(update={"normalise": given})})
        ways, lines = found_ways(config)
        assert set(ways) == {GIVEN, BYTES, "BGR"} | {"signed", "unit", "imagenet"} - {given}
        if right == given:
            assert not any("preprocessing fits" in line for line in lines)
            return
        assert ways[right].bn_distance == min(way.bn_distance for way in ways.values())
        line = next(line for line in lines if "preprocessing fits" in line)
        assert f"try --normalise {right}" in line
        assert f"{ways[right].bn_distance:.2f}, not {ways[GIVEN].bn_distance:.2f}" in line

    def test_of_pixels_as_bytes(self, teacher):
        config = teacher({"range": [0, 255]})
        config = config.model_copy(update={"input": config.input.model_copy(update={"range": None})})
        assert any("range: [0, 255]" in line for line in found_ways(config)[1])

    @pytest.mark.parametrize(("right", "given"), [("rgb", "bgr"), ("bgr", "rgb"), ("bgr", "bgr")])
    def test_of_the_order_of_channels(self, right, given, teacher):
        config = teacher({"order": right})
        config = config.model_copy(update={"input": config.input.model_copy(update={"order": given})})
        ways, lines = found_ways(config)
        other = "RGB" if given == "bgr" else "BGR"
        assert (ways[other].bn_distance < ways[GIVEN].bn_distance) == (right != given)
        assert any(f"{other}: its inputs" in line and f"try --order {right}" in line for line in lines) == (
            right != given
        )

    def test_of_a_network_without_norms(self, tmp_path):
        torch.save(build_classifier("lenet", 3, 2).state_dict(), tmp_path / "w.pt")
        ways, _ = found_ways(TeacherConfig(network="lenet", width=2, path=str(tmp_path / "w.pt"), classes=3))
        assert not {"BGR", "RGB"} & set(ways)  # it takes gray images
        assert all(math.isnan(way.bn_distance) and way.infomax >= 0 for way in ways.values())

    def test_of_outputs(self, teacher):
        for bias, says in (([0.0, 0.0, 0.0], "undecided"), ([0.0, 9.0, 0.0], "sees one class")):
            lines = found_ways(teacher({}, scale=0.0, bias=bias))[1]
            assert any(says in line and "preprocessing or the weights are probably wrong" in line for line in lines)

    def test_of_small_and_of_few_images(self, teacher, tmp_path):
        (tmp_path / "small").mkdir()
        for number in range(30):
            pixels = np.random.default_rng(number).integers(0, 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "small" / f"{number}.png")
        name = f"folder:{tmp_path / 'small'}"
        lines = doubts(look(teacher({}), [name, "photos"]))
        assert any(line.startswith(name) and "10 pixels" in line and "16x16" in line for line in lines)
        assert any(line.startswith(name) and "30 images are few" in line for line in lines)
        assert not any(line.startswith("photos") for line in lines)
