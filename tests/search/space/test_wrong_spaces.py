"""Space files that are refused, each with a message that says where and why."""

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from degan_search.search.space import file as space_file
from degan_search.settings import yaml_text
from degan_search.system.errors import UserError
from tests.search.space.made_spaces import read, refused, write

NUMBERS = ("width", "latent", "epochs")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"cellls": {}}, ["mine.yaml", "unknown key 'cellls'", "cells"]),
        ({"search": {"trails": 3}}, ["unknown key 'search.trails'", "trials"]),
        ({"search": {"sampler": "tpo"}}, ["search.sampler", "'tpo'"]),
        ({"search": {"trials": 0}}, ["search.trials"]),
        ({"asha": {"reduction_factor": 1}}, ["asha.reduction_factor"]),
        ({"finals": {"seeds": []}}, ["finals.seeds"]),
        ({"finals": {"seeds": [-1]}}, ["finals.seeds"]),
        ({"finals": {"seeds": [3, 0]}}, ["finals.seeds", "own seed 0"]),
        ({"finals": {"seeds": [7]}, "parameters": {"seed": [5, 7]}}, ["own seed 7"]),
        ({"finals": {"combine": {"members": 1}}}, ["finals.combine.members = 1"]),
        ({"finals": {"combine": {"share": 1}}}, ["finals.combine.share = 1"]),
        (
            {"finals": {"combine": {"members": 3}}, "cells": {"method": ["dcgan", "proxy"]}},
            ["finals.combine", "no generators"],
        ),
        ({"cells": {"method": ["degan", "combined"]}}, ["cell method=combined", "finals: {combine: {members: 4}}"]),
        ({"trial": {"gan": {"lambda_x": 1}}}, ["unknown key 'gan.lambda_x'", "lambda_e"]),
        ({"trial": {"gan": {"lr": -1}}}, ["gan.lr = -1"]),
        ({"trial": {"gan": 3}}, ["gan = 3"]),
        ({"trial": {"teacher": {"dataset": "cifar11"}}}, ["'cifar11'", "cifar10"]),
        ({"trial": {"teacher": {"network": "alexnett"}}}, ["'alexnett'", "alexnet"]),
        ({"trial": {"student": {"network": "lenett"}}}, ["'lenett'", "lenet"]),
        ({"trial": {"probe": {"at": [20, 10]}}}, ["probe", "ascend"]),
        ({"cells": {"method": ["degan", "degann"]}}, ["cell method=degann", "degan"]),
        ({"cells": {"proxy": ["digits", "cifar100/nosuch"]}}, ["cell proxy=cifar100/nosuch"]),
        ({"cells": {"proxy": ["glyphs/[A-J]", "cifar100/[flowers,treess]"]}}, ["'treess'", "trees"]),
        ({"cells": {"proxy": []}}, ["cells.proxy"]),
        ({"cells": {"proxy": ["digits", "digits"]}}, ["cell proxy=digits", "twice"]),
        ({"cells": {"proxxy": ["digits"]}}, ["unknown key 'proxxy'", "proxy"]),
        ({"cells": {f"gan.{n}": list(range(100)) for n in NUMBERS}}, ["cells", "combinations"]),
        ({"parameters": {"student.network": ["lenet", "lenot"]}}, ["'lenot'"]),
        ({"parameters": {"proxy": ["digits", "diggits"]}, "cells": {}}, ["'diggits'"]),
        ({"parameters": {"method": ["degan", "dcgun"]}}, ["'dcgun'"]),
        ({"parameters": {"gan.beta1": {"range": [0, 2]}}}, ["gan.beta1"]),
        ({"parameters": {"gan.width": {"range": [2, 4]}}}, ["gan.width", "integer"]),
        ({"parameters": {"count": {"int": [10, 20]}}}, ["count can vary in a list alone"]),
        ({"parameters": {"gan.lambda_e": []}}, ["gan.lambda_e"]),
        ({"when": [{"if": {}}]}, ["when.0.if"]),
        ({"when": [{"if": {"method": "degan"}, "parameters": {"gan.lambda_d": [0, 1]}}]}, ["gan.lambda_d", "twice"]),
        ({"when": [{"if": {"gan.lambda_d": 10}, "trial": {"gan": {"lrr": 1}}}]}, ["unknown key 'gan.lrr'"]),
        ({"when": [{"if": {"gan.lambda_d": 5}, "parameters": {"gan.lr": [0.1, 99]}}]}, ["gan.lr"]),
        ({"first": [{"gan.lambda_e": 99}]}, ["first: gan.lambda_e = 99", "[0.1, 10.0]"]),
        ({"first": [{"gan.lambda_e": 0.01}]}, ["first: gan.lambda_e = 0.01"]),
        ({"first": [{"gan.lambda_d": 7}]}, ["first: gan.lambda_d = 7", "[0, 5, 10]"]),
        ({"first": [{"gan.lambda_e": "much"}]}, ["first: gan.lambda_e = 'much'", "number"]),
        ({"first": [{"gan.lambda_x": 1}]}, ["first: 'gan.lambda_x'", "gan.lambda_d, gan.lambda_e"]),
        ({"first": [{"gan.lr": 0.1}]}, ["first: 'gan.lr'"]),
        ({"first": [{"gan.width": 2.5}], "parameters": {"gan.width": {"int": [2, 4]}}}, ["gan.width", "whole"]),
        ({"search": {"sampler": "grid"}}, ["grid needs lists", "gan.lambda_e"]),
        (
            {"search": {"sampler": "grid"}, "parameters": {f"gan.{n}": [*range(1, 200)] for n in NUMBERS}},
            ["grid has more than"],
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_spaces(changes, parts, tmp_path):
    refused(lambda: read(tmp_path, **changes), *parts)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "valid dictionary"),
        ("just words", "valid dictionary"),
        ("[1, 2]", "valid dictionary"),
        ("a: [", "not YAML"),
        ("a: b: c", "not YAML"),
        ("trial: !!python/object/apply:os.system ['true']", "not YAML"),
        (BOMB, "aliases"),
        ("trial: &again {gan: *again}", "aliases"),
        ("[" * 5000, "nested too deeply"),
        ("trial: " + "{a: " * 5000, "nested too deeply"),
        ("trial: {proxy: 2024-02-03}", "trial: proxy = 2024-02-03"),
        ("trial: {proxy: 2024-99-99}", "not YAML"),
        ("trial: {gan: {1: 2}}", "key 1 must be text"),
        ("1: 2", "key 1 must be text"),
        ("trial: !!binary aGVsbG8=", "bytes"),
        ("# " + "x" * yaml_text.MAX_BYTES, "at most 1,000,000 are read"),
    ],
    ids=lambda text: text[:25],
)
def test_text_that_is_no_space(text, says, tmp_path):
    refused(lambda: space_file.load(write(tmp_path, text)), "mine.yaml", says)


@given(st.text(max_size=60))
def test_any_text_is_refused_in_one_line_or_read(text):
    try:
        yaml_text.parse(text, "text")
    except UserError as error:
        assert "\n" not in str(error)


def test_bytes_that_are_no_text(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"description: \xff\xfe")
    refused(lambda: space_file.load(str(file)), "mine.yaml", "cannot be read as text")


def test_names_that_are_not_there(tmp_path):
    refused(lambda: space_file.load(str(tmp_path / "none.yaml")), "none.yaml", "does not exist")
    refused(lambda: space_file.load(str(tmp_path)), "not shipped")
    refused(lambda: space_file.load("smoek"), "did you mean smoke")


def test_a_parameter_that_the_method_does_not_use_is_refused(tmp_path):
    refused(lambda: read(tmp_path, parameters={"shots": [1, 5]}), "shots varies", "'degan' does not use it")
    varied = {"method": ["proxy", "degan"]}
    refused(
        lambda: read(tmp_path, cells=varied, parameters={"distill.mix_proxy": [0.25, 0.5]}), "method=proxy", "mix_proxy"
    )
    read(tmp_path, cells=varied)  # of the weights a row says that they had no effect


def test_a_referee_without_test_images(tmp_path):
    own, file = tmp_path / "own.npz", tmp_path / "mine.yaml"
    np.savez(own, images=np.zeros((4, 32, 32, 3), np.uint8), labels=np.arange(4) % 2)
    teacher = {"path": "teacher.pt", "network": "lenet"}
    for more, says in (({}, "true images.*teacher.dataset"), ({"dataset": f"npz:{own}"}, "test images.*has none")):
        space = {"trial": {"teacher": teacher | more, "proxy": "photos"}, "finals": {"seeds": [1], "referee": True}}
        file.write_text(yaml.safe_dump(space))
        with pytest.raises(UserError, match=rf"finals\.referee needs {says}"):
            space_file.load(str(file))


@pytest.mark.parametrize(("by", "setting"), [("oracle_accuracy", "dataset"), ("check_accuracy", "check")])
def test_finals_chosen_by_labelled_images_that_are_not_there(tmp_path, by, setting):
    trial = {"teacher": {"path": "teacher.pt", "network": "lenet"}, "method": "degan", "proxy": "photos"}
    space = {"trial": trial, "finals": {"seeds": [1], "by": by}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(space))
    with pytest.raises(UserError, match=rf"finals\.by '{by}' needs labelled images.*teacher\.{setting}"):
        space_file.load(str(file))
