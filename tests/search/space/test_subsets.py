"""Lists of proxies in short: unions of some, classes of a set; written out when the space is read."""

import itertools

import pytest

from degan_search.data import proxies
from degan_search.data.sets import SUPERCLASSES
from degan_search.search.run.folder import with_whole_paths
from degan_search.search.space import cell as spaces
from degan_search.search.space import file as space_file
from degan_search.search.space.subsets import ClassesOf
from tests.search.space.made_spaces import draws, read, refused, write

THREE = ["glyphs/[K-Z]", "photos", "noise/uniform"]


def listed(folder, given, **changes):
    return read(folder, cells={}, parameters={"proxy": given}, **changes).parameters["proxy"]


def test_every_union_of_some(tmp_path):
    assert listed(tmp_path, {"subset_of": THREE, "size": [1, 2]}) == [
        *THREE,
        "glyphs/[K-Z]+photos",
        "glyphs/[K-Z]+noise/uniform",
        "photos+noise/uniform",
    ]
    assert listed(tmp_path, {"subset_of": THREE, "size": [3, 3]}) == ["+".join(THREE)]


def test_some_unions_are_drawn(tmp_path):
    every = listed(tmp_path, {"subset_of": THREE, "size": [1, 3]})
    assert len(every) == 7
    drawn = listed(tmp_path, {"subset_of": THREE, "size": [1, 3], "draws": 5})
    assert len(set(drawn)) == 5
    assert set(drawn) < set(every)
    assert set(listed(tmp_path, {"subset_of": THREE, "size": [1, 3], "draws": 7})) == set(every)


def test_classes_are_drawn_as_everywhere(tmp_path):
    given = {"classes_of": "cifar100", "size": [1, 20], "draws": 16, "seed": 0}
    drawn = listed(tmp_path, given)
    assert len(set(drawn)) == 16
    assert drawn[1] == "cifar100/[dinosaur,flatfish,leopard,orchid,palm_tree,snake]"
    assert drawn == listed(tmp_path, given | {"draws": 20})[:16]
    assert drawn != listed(tmp_path, given | {"seed": 1})
    sizes = [len(proxies.classes_of(name)) for name in ClassesOf(**given | {"draws": 200}).written_out()]
    assert set(sizes) == set(range(1, 21))
    assert 9 < sum(sizes) / len(sizes) < 12  # each size as likely as another, not each subset


def test_superclasses_are_units(tmp_path):
    given = {"size": [1, 3], "draws": 30, "superclasses": True}
    for name in listed(tmp_path, given | {"classes_of": "cifar100"}):
        assert len(proxies.classes_of(name)) in (5, 10, 15)
    related = listed(tmp_path, {"classes_of": "cifar100/related_90", "size": [1, 1], "superclasses": True})
    assert related == [f"cifar100/[{name}]" for name in SUPERCLASSES if "vehicles" not in name]


def test_a_sized_set_keeps_its_size(tmp_path):
    given = {"classes_of": "glyphs@64/[A-C]", "size": [2, 2]}
    assert listed(tmp_path, given) == ["glyphs@64/[A,B]", "glyphs@64/[A,C]", "glyphs@64/[B,C]"]


def test_a_space_is_kept_with_the_list(tmp_path):
    given = {"proxy": {"classes_of": "digits", "size": [1, 2], "draws": 4}}
    space = read(tmp_path, cells={}, parameters=given, search={"sampler": "random"})
    again = space_file.load(write(tmp_path, space_file.dump(space), "again.yaml"))
    assert again == space
    assert len(again.parameters["proxy"]) == 4
    assert {config.proxy for config in draws(spaces.cells(again)[0], 60)} == set(again.parameters["proxy"])


def test_under_cells_and_under_a_condition(tmp_path):
    given = {"subset_of": ["photos", "digits"], "size": [1, 2]}
    names = ["photos", "digits", "photos+digits"]
    assert [cell.settings["proxy"] for cell in spaces.cells(read(tmp_path, cells={"proxy": given}))] == names
    when = [{"if": {"method": "degan"}, "parameters": {"proxy": given}}]
    assert read(tmp_path, cells={}, when=when).when[0].parameters["proxy"] == names


def test_paths_of_unions_become_whole_with_the_space(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"proxy": {"subset_of": ["folder:a", "photos", "folder:b"], "size": [2, 2]}}
    space = with_whole_paths(space_file.parsed({"parameters": given}, "space"))
    own = [f"folder:{tmp_path}/{name}" for name in "ab"]
    assert space.parameters["proxy"] == [f"{own[0]}+photos", "+".join(own), f"photos+{own[1]}"]


FOUR = ["photos", "digits", "noise/uniform", "noise/gaussian"]
MANY = [f"glyphs/[{letter}]" for letter in "ABCDEFG"]


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"subset_of": FOUR, "size": [0, 2]}, ["size = [0, 2]", "from 1 to 4"]),
        ({"subset_of": FOUR, "size": [1, 5]}, ["size = [1, 5]", "from 1 to 4"]),
        ({"subset_of": FOUR, "size": [3, 2]}, ["size = [3, 2]"]),
        ({"subset_of": FOUR, "size": 2}, ["proxy: size = 2"]),
        ({"subset_of": FOUR}, ["proxy: size", "required"]),
        ({"subset_of": FOUR, "size": [1, 1], "draws": 5}, ["draws = 5", "only 4 subsets of 1 to 1"]),
        ({"subset_of": FOUR, "size": [1, 1], "draws": 0}, ["draws = 0"]),
        ({"subset_of": FOUR, "size": [1, 1], "superclasses": True}, ["unknown key 'superclasses'"]),
        ({"subset_of": [*FOUR, "digits"], "size": [1, 1]}, ["digits is in the list twice"]),
        ({"subset_of": [], "size": [1, 1]}, ["proxy: subset_of = []"]),
        ({"subset_of": ["photos", "fotos"], "size": [2, 2]}, ["no image set or subset 'fotos'", "photos"]),
        ({"subset_of": ["glyphs/[A,B]", "glyphs/[B]"], "size": [1, 2]}, ["holds images twice: B of"]),
        ({"subset_of": MANY, "size": [1, 6]}, ["there are 126 subsets of 1 to 6 of 7", "at most 64", "draws: 16"]),
        ({"classes_of": "cifar100", "size": [1, 20]}, ["subsets of 1 to 20 of 100", "draws: 16"]),
        ({"classes_of": "cifar100", "size": [1, 101], "draws": 2}, ["size = [1, 101]", "from 1 to 100"]),
        ({"classes_of": "cifar100", "size": [1, 21], "draws": 2, "superclasses": True}, ["from 1 to 20"]),
        ({"classes_of": "glyphs", "size": [1, 1], "superclasses": True}, ["superclasses: glyphs has none"]),
        ({"classes_of": "cifar101", "size": [1, 2]}, ["no image set or subset 'cifar101'", "cifar100"]),
        ({"classes_of": "glyphs/[a1]", "size": [1, 2]}, ["glyphs has no class 'a1'"]),
        ({"classes_of": "photos", "size": [1, 2]}, ["photos has no classes"]),
        ({"classes_of": "folder:own", "size": [1, 2]}, ["folder:own are not known before it is read"]),
        ({"classes_of": "digits", "subset_of": FOUR, "size": [1, 1]}, ["unknown key 'classes_of'"]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_gives_no_list(given, parts, tmp_path):
    refused(lambda: listed(tmp_path, given), *parts)


def test_other_settings_have_no_short_form(tmp_path):
    given = {"gan.lambda_e": {"subset_of": ["0", "1"], "size": [1, 1]}}
    refused(lambda: read(tmp_path, parameters=given), "gan.lambda_e: subset_of and classes_of stand under proxy alone")


def test_all_pairs_of_ten_fit_and_more_do_not(tmp_path):
    letters = [f"glyphs/[{letter}]" for letter in "ABCDEFGHIJK"]
    pairs = listed(tmp_path, {"subset_of": letters, "size": [2, 2]})
    assert pairs == ["+".join(pair) for pair in itertools.combinations(letters, 2)]
    refused(lambda: listed(tmp_path, {"subset_of": [*letters, "photos"], "size": [2, 2]}), "there are 66 subsets")
