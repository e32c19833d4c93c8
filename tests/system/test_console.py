"""How a count of what is done is shown, on a terminal and without one."""

import io

import pytest
from rich.console import Console

from degan_search.system.console import Count


def counted(of, steps, **options):
    """What is shown while so many steps are counted, each an equal part."""
    out = io.StringIO()
    with Count(Console(file=out, width=80, **options), "Seen [bold]", of, "cats") as count:
        for _ in range(steps):
            count.add(of / steps)
    return out.getvalue()


@pytest.mark.parametrize(("of", "steps", "lines"), [(40, 40, 10), (3, 3, 3), (8, 16, 8), (1, 1, 1), (0, 0, 0)])
def test_without_a_terminal_there_is_a_line_each_tenth_at_most(of, steps, lines):
    shown = counted(of, steps).splitlines()
    assert len(shown) == lines
    assert shown[-1:] == [f"Seen [bold]: {of} of {of} cats"] * bool(of)


def test_on_a_terminal_one_line_is_rewritten():
    shown = counted(40, 40, force_terminal=True)
    assert "Seen [bold]: " in shown and " of 40 cats" in shown
    assert "\x1b[2K" in shown  # and taken away at the end
    assert shown.count("\n") <= 1


def test_quiet_consoles_and_nothing_to_do_show_nothing():
    assert counted(5, 5, quiet=True) == counted(0, 0, force_terminal=True) == ""
