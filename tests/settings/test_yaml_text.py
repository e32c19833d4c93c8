"""What is read from YAML as numbers, keys that are set twice, and aliases."""

import pytest

from degan_search.settings import yaml_text
from degan_search.system.errors import UserError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
LONG = f"a: &a {'x' * 20_000}\nb: [{', '.join(['*a'] * 60)}]"


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-2", 0.01), ("1E-2", 0.01), ("-1e-2", -0.01), ("5e3", 5000), ("1.5e3", 1500), ("1.e3", 1000), (".5e+1", 5)],
)
def test_numbers_with_an_exponent_are_numbers(text, number):
    assert yaml_text.parse(f"a: [{text}, '{text}']", "text") == {"a": [number, text]}


@pytest.mark.parametrize("text", ["1e", "e5", "1e-2x", "1e5.5", "1-e5", "a1e5"])
def test_other_text_stays_text(text):
    assert yaml_text.parse(text, "text") == text


@pytest.mark.parametrize(
    ("text", "name", "lines"),
    [
        ("a: 1\nb: 2\na: 3", "a", (1, 3)),
        ("t:\n  gan: {steps: 10}\n  gan: {width: 4}", "gan", (2, 3)),
        ("gan.steps: 25\ngan: {steps: 10}", "gan.steps", (1, 2)),
        ("gan: {steps: 10}\n\ngan.steps: 25", "gan.steps", (1, 3)),
        ("gan: 3\ngan.steps: 25", "gan.steps", (1, 2)),
        ("gan.steps: 25\ngan: 3", "gan", (1, 2)),
        ("a.b: {c: 1}\na:\n  b.c: 2", "a.b.c", (1, 3)),
        ("x: &x\n  s: 1\ny: {gan: {<<: *x}, gan.s: 2}", "gan.s", (2, 3)),
    ],
)
def test_what_is_set_twice_is_refused_with_both_lines(text, name, lines):
    with pytest.raises(UserError) as caught:
        yaml_text.parse(text, "mine.yaml")
    assert str(caught.value).startswith(f"mine.yaml: {name!r} is set twice, in line {lines[0]} and in line {lines[1]}")


@pytest.mark.parametrize(
    "text", ["gan.steps: 1\ngan: {width: 2}", "gan.fit: {lr: 1}\ngan: {fit: {epochs: 2}}", "gan: {}\ngan.steps: 1"]
)
def test_settings_of_one_group_may_stand_apart(text):
    assert len(yaml_text.parse(text, "text")) == 2


def test_anchors_and_merges_are_taken():
    text = "base: &base {steps: 10, width: 4}\none: *base\ntwo: {<<: *base, steps: 25}\nthree: {<<: [*base], fit.lr: 1}"
    found = yaml_text.parse(text, "text")
    base = {"steps": 10, "width": 4}
    assert found == {"base": base, "one": base, "two": base | {"steps": 25}, "three": base | {"fit.lr": 1}}


@pytest.mark.parametrize("text", [BOMB, LONG, BOMB.replace("[", "{<<: [").replace("]", "]}")])
def test_aliases_that_stand_for_too_much_are_refused(text):
    with pytest.raises(UserError, match="longer than 1,000,000 characters with its aliases"):
        yaml_text.parse(text, "text")


@pytest.mark.parametrize("text", ["a: &a {b: *a}", "a: &a [*a]", "a: &a {<<: *a}", "a: &a {b: &b {c: *a}, d: *b}"])
def test_aliases_that_lead_to_themselves_are_refused(text):
    with pytest.raises(UserError, match=r"aliases \(\*name\) must not stand within what they name, as in line 1"):
        yaml_text.parse(text, "text")


def test_deep_nesting_is_refused():
    with pytest.raises(UserError, match="nested too deeply"):
        yaml_text.parse("{a: " * 60 + "1" + "}" * 60, "text")
