"""Paths in settings become whole; whatever is no path, or is whole already, stays as it is written."""

import pytest

from degan_search.search.run.folder import with_whole_paths as space_with_whole_paths
from degan_search.search.space.schema import Space
from degan_search.settings.paths import whole, with_whole_paths
from degan_search.system.errors import UserError


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")


def test_a_path_is_made_whole(tmp_path):
    assert whole("a/b.pt") == whole("./a/b.pt") == f"{tmp_path}/a/b.pt"
    assert whole("~/b.pt") == "/home/me/b.pt"
    assert whole("/x//./b.pt") == "/x//./b.pt"  # as a hash of it may be in a ledger
    with pytest.raises(UserError, match="path '~nobody-of-this-name/b"):
        whole("~nobody-of-this-name/b.pt")


def test_settings_that_name_files_are_found_wherever_they_stand(tmp_path):
    space = Space.model_validate(
        {
            "description": "folder:photos",
            "trial": {"teacher": {"path": "t.pt", "dataset": "folder:true/[a,b]"}, "student.network": "a/b"},
            "cells": {
                "proxy": ["folder:photos", "glyphs/[A-J]", "npz:/whole/x.npz", "folder:a+b+digits+npz:~/c.npz"],
                "method": ["degan"],
            },
            "parameters": {"teacher.path": ["t.pt", "~/u.pt", None], "count": [1, 2]},
            "when": [{"if": {"proxy": ["folder:photos"]}, "trial": {"teacher.path": "v.pt"}}],
            "first": [{"teacher.path": "t.pt", "count": 2}],
        }
    )
    found = space_with_whole_paths(space)
    teacher = {"path": f"{tmp_path}/t.pt", "dataset": f"folder:{tmp_path}/true/[a,b]"}
    assert found.trial == {"teacher": teacher, "student.network": "a/b"}
    union = f"folder:{tmp_path}/a+b+digits+npz:/home/me/c.npz"
    assert found.cells["proxy"] == [f"folder:{tmp_path}/photos", "glyphs/[A-J]", "npz:/whole/x.npz", union]
    assert found.parameters == {"teacher.path": [f"{tmp_path}/t.pt", "/home/me/u.pt", None], "count": [1, 2]}
    assert found.when[0].if_ == {"proxy": [f"folder:{tmp_path}/photos"]}
    assert found.when[0].trial == {"teacher.path": f"{tmp_path}/v.pt"}
    assert found.first == [{"teacher.path": f"{tmp_path}/t.pt", "count": 2}]
    assert found.description == space.description
    assert space_with_whole_paths(found) == found


def test_a_trial_without_relative_paths_stays_as_it_is(tiny):
    for changes in ({}, {"teacher.path": "/x/t.pt", "proxy": "folder:/x//photos", "teacher.dataset": "parquet:/x/a"}):
        settings = tiny(changes).model_dump(mode="json")
        assert with_whole_paths(settings) == settings


def test_paths_in_names_of_networks_become_whole(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def named(network):
        return with_whole_paths({"trial": {"teacher": {"network": network}}})["trial"]["teacher"]["network"]

    assert named("net.py:build?depth=2") == f"{tmp_path}/net.py:build?depth=2"
    assert named("a.onnx") == f"{tmp_path}/a.onnx"
    for name in ("lenet", "torchvision/resnet18", "package.module:build", "/whole/net.py:build"):
        assert named(name) == name
