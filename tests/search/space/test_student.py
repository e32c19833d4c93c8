"""`student.network: auto` in a space: a name once it is read, for one teacher alone."""

import pytest

from degan_search.search.space import file as space_file
from degan_search.search.space.cell import cells
from tests.search.space.made_spaces import read, refused, write

AUTO = {"teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}, "student": {"network": "auto"}}
pytestmark = pytest.mark.filterwarnings("ignore::degan_search.system.errors.NoticeWarning")


def test_is_a_name_when_the_space_is_read(tmp_path):
    space = read(tmp_path, trial=AUTO)
    assert space.trial["student"] == {"network": "lenet_half"}
    assert cells(space)[0].example().student.network == "lenet_half"
    assert space_file.load(write(tmp_path, space_file.dump(space), "again.yaml")) == space


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"cells": {"teacher.network": ["lenet", "resnet18"]}}, ["one teacher", "teacher.network varies"]),
        ({"when": [{"if": {"proxy": "digits"}, "trial": {"teacher": {"width": 3}}}]}, ["teacher.width varies"]),
        ({"trial": {}, "parameters": {"student.network": ["auto", "lenet"]}}, ["under trial alone"]),
        ({"trial": AUTO | {"student": {"network": "auto", "width": 4}}}, ["student.width = 4"]),
        ({"trial": AUTO | {"teacher": {"network": "lenett"}}}, ["'lenett'", "lenet"]),
    ],
)
def test_refuses(tmp_path, changes, parts):
    refused(lambda: read(tmp_path, **{"trial": AUTO, **changes}), *parts)
