"""A sweep in a notebook: one output that is kept up, an interrupt that ends it cleanly, and the rest by `resume`."""

import json

import nbformat
import pytest
from nbclient import NotebookClient

from tests.cli.calls import TRIAL
from tests.search.tiny_sweep import share

SPACE = {
    "trial": TRIAL | {"gan": TRIAL["gan"] | {"steps": 400}},
    "cells": {"proxy": ["digits"], "method": ["degan"]},
    "parameters": {"gan.lambda_d": [0, 5]},
    "search": {"sampler": "grid"},
}
BEGIN = f"""
import json, os, signal, threading, time
from pathlib import Path
import degan_search as ds

def interrupt():
    while not list(Path("runs/tiny/ledger").glob("search-0000-*")):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)  # as a kernel is interrupted

threading.Thread(target=interrupt, daemon=True).start()
before = signal.getsignal(signal.SIGINT)
try:
    ds.sweep(json.loads({json.dumps(json.dumps(SPACE))}), name="tiny", max_concurrent=1)
except KeyboardInterrupt as stop:
    print("interrupted:", stop)
assert signal.getsignal(signal.SIGINT) is before
begun = ds.open_run("runs/tiny").trials
print([*begun["trial_id"]], [*begun["state"]])
"""
GO_ON = """
run = ds.resume("runs/tiny")
assert [*run.trials["trial_id"]] == ["search-0000", "search-0001"]
assert run.trials["finished"][0] == begun["finished"][0], "what had ended was run again"
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """The cells after the kernel ran them, and the displays that it sent and replaced, by their number."""
    folder = tmp_path_factory.mktemp("notebook")
    share(SPACE, folder / "runs" / "cache")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (BEGIN, GO_ON, "run")])
    replaced = []

    class Client(NotebookClient):
        def process_message(self, message, cell, index):
            if message["msg_type"] == "update_display_data":
                replaced.append((index, message["content"]["data"]["text/html"]))
            return super().process_message(message, cell, index)

    Client(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook.cells, replaced


def texts(cell):
    return "".join(output.get("text", "") for output in cell["outputs"])


def displays(cell):
    return [output["data"]["text/html"] for output in cell["outputs"] if "data" in output]


def test_an_interrupt_ends_the_sweep_and_says_how_to_go_on(cells):
    begun = cells[0][0]
    assert texts(begun).startswith("interrupted: nothing that ended is lost; go on with: degan-search resume runs/tiny")
    assert texts(begun).splitlines()[1:] == ["['search-0000'] ['COMPLETE']"]


def test_a_cell_has_one_output_which_is_replaced(cells):
    (begun, gone_on, _), replaced = cells
    for number, cell in enumerate((begun, gone_on)):
        assert len(displays(cell)) == 1
        assert len([index for index, _ in replaced if index == number]) > 3
    assert not texts(gone_on)
    (shown,) = displays(gone_on)
    assert "<td>proxy=digits method=degan</td><td>1</td>" in shown
    assert "Everything to look at: " in shown
    assert any("1 running" in page for _, page in replaced)


def test_the_output_has_a_figure_which_grows_with_the_trials(cells):
    (_, gone_on, _), replaced = cells
    points = {number: [page.count("<circle") for index, page in replaced if index == number] for number in (0, 1)}
    assert points[0] == sorted(points[0]) and points[0][0] == 0
    assert points[1][-1] == 1 and "<title>search-0001: 0." in displays(gone_on)[0]


def test_a_run_shows_its_table(cells):
    (shown,) = displays(cells[0][2])
    assert "Student accuracy in %" in shown
    assert "<td>digits" in shown
