"""A first space: a file that loads, says what it is for, and grows with the time budget."""

import pytest
import yaml

from degan_search.search.planning import first_space
from degan_search.search.planning.first_space import SIZES, Wanted, fitted, text_of
from degan_search.search.space import file as space_file
from degan_search.search.space.cell import cells
from degan_search.settings.trial import StudentConfig, TeacherConfig
from degan_search.system.errors import UserError
from tests.search.planning.made_up_steps import steps_take

CALL = "degan-search init --teacher 'net.py:build?{a}'  # x"


def wanted(**changes):
    given = {
        "teacher": TeacherConfig(network="lenet", width=4, path="w.pt", classes=["a", "b: c", "d"]),
        "student": StudentConfig(network="lenet_half"),
        "proxies": [("photos", 10_000), ("glyphs/[K-Z]", 16_000)],
        "gan_size": 32,
        "command": CALL,
    }
    return Wanted(**given | changes)


@pytest.fixture(autouse=True)
def steps(monkeypatch):
    """A millisecond for each image of a step."""
    steps_take(monkeypatch, 0.001, 0.001)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size.steps))
def test_every_size_is_a_space(size, tmp_path):
    file = tmp_path / "first.yaml"
    file.write_text(text_of(wanted(), size))
    space = space_file.load(file)
    assert file.read_text().startswith(f"# Made by: {CALL}\n")
    assert space.trial["teacher"]["classes"] == ["a", "b: c", "d"]
    for cell in cells(space):
        config = cell.example()
        assert config.teacher == wanted().teacher
        assert config.student == wanted().student
        assert (config.gan.steps, config.gan.size) == (size.steps, 32)
        assert (config.count, config.count_is) == (size.count, "most")
        weights = {"gan.lambda_e", "gan.lambda_d"} if config.method == "degan" else set()
        assert set(cell.varies()) == {"proxy", *weights}


def test_all_students_are_compared_on_the_same_images_and_the_proxy_images_come_first():
    text = text_of(wanted(proxies=[("photos", 10_000), ("digits", 1437)]), SIZES[0])
    for cell in cells(space_file.parsed(yaml.safe_load(text), "")):
        config = cell.example()
        assert (config.objective, config.bank.proxies) == ("sure_agreement", ("photos", "digits"))
        assert (config.bank.judges, config.bank.generators) == (("noise/uniform",), ())
        assert config.probe.at[0] == 0
    alone = text_of(wanted(proxies=[("photos", 10_000)]), SIZES[0])
    assert all(cell.example().probe.at[0] for cell in cells(space_file.parsed(yaml.safe_load(alone), "")))


def test_grows_with_the_budget():
    budgets = (600, 3600, 10**7)
    found = [fitted(wanted(), budget, 2) for budget in budgets]
    assert [one.size.steps for one in found] == sorted({one.size.steps for one in found})
    assert found[-1].size == SIZES[-1]
    for one, budget in zip(found, budgets, strict=True):
        assert first_space.START < one.seconds <= first_space.SHARE * budget


def test_more_slots_take_less_time():
    assert fitted(wanted(), 3600, 8).size.steps > fitted(wanted(), 3600, 1).size.steps


def test_a_busy_machine_gets_the_same_plan(monkeypatch):
    monkeypatch.setattr(first_space, "share_of_cpu", lambda threads: 1.0)
    quiet = fitted(wanted(), 3600, 2)
    steps_take(monkeypatch, 0.002, 0.002)
    monkeypatch.setattr(first_space, "share_of_cpu", lambda threads: 0.5)
    busy = fitted(wanted(), 3600, 2)
    assert (busy.text, busy.seconds, busy.share) == (quiet.text, quiet.seconds, 0.5)


def test_refuses_a_budget_too_short_and_says_what_fits():
    with pytest.raises(UserError, match=r"--budget 60 s is too short: the smallest .* about \d+ min"):
        fitted(wanted(), 60, 1)
