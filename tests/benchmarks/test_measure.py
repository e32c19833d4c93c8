"""What the benchmarks share: turns, ratios, and what is written."""

import json

import pytest

from benchmarks.measure import Figures, arguments, interleaved


def test_cases_take_turns_and_the_warm_up_is_left_out():
    called = []
    seconds = interleaved({name: lambda name=name: called.append(name) for name in "abc"}, 2, warm_up=1)
    assert "".join(called) == "abcabcabc"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2, "c": 2}
    assert min(map(min, seconds.values())) >= 0


def test_figures_are_printed_and_written(tmp_path, capsys):
    figures = Figures()
    figures.times("faster", [4.0, 6.0, 9.0], [2.0, 1.0, 3.0])
    figures.add("nothing", float("nan"))
    figures.save(None)
    figures.save(tmp_path / "figures.json")
    assert capsys.readouterr().out.splitlines() == [
        "faster: 3",
        "faster_least: 2",
        "faster_most: 6",
        "nothing: nan",
    ]
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["figures"] == {"faster": 3.0, "faster_least": 2.0, "faster_most": 6.0, "nothing": None}
    assert written["about"]["hardware"] and written["about"]["date"] and written["about"]["threads"] == 1


def test_each_default_is_an_option_of_its_type(tmp_path):
    parser = arguments("What it measures.", repetitions=3, gan_steps=100, task="glyphs", rate=0.5)
    assert vars(parser.parse_args([])) == {
        "repetitions": 3,
        "gan_steps": 100,
        "task": "glyphs",
        "rate": 0.5,
        "json": None,
    }
    given = parser.parse_args(["--gan-steps", "7", "--json", str(tmp_path)])
    assert given.gan_steps == 7 and given.json == tmp_path
    with pytest.raises(SystemExit):
        parser.parse_args(["--gan-steps", "many"])
