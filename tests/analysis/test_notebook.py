"""The notebook runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from made_ledger import made_ledger
from nbclient import NotebookClient

from degan_search import ledger

NOTEBOOK = Path(__file__).parents[2] / "analysis" / "table2.ipynb"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What each cell of code shows over a made-up run with measures of its proxies."""
    run = made_ledger(tmp_path_factory.mktemp("runs") / "made", trials=120)
    cells = ledger.load(run)[["config_proxy", "config_count"]].drop_duplicates()
    measures = cells.set_axis(["proxy", "count"], axis=1).assign(effective_classes=range(1, len(cells) + 1))
    measures.to_csv(run / "relatedness.csv", index=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are no part of the repository"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUN", str(run))
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    return [cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"]


def test_every_figure_that_a_ledger_alone_gives_is_drawn(outputs):
    pictures = [output for shown in outputs for output in shown if "image/png" in output.get("data", {})]
    # Methods by proxy, weights, parallel coordinates, importances, steps, compute, relatedness.
    assert len(pictures) == 7, [output.get("text") for shown in outputs for output in shown]


def test_tables_are_printed(outputs):
    text = "\n".join(str(output) for shown in outputs for output in shown)
    for part in ("Student accuracy in %", "mean_regret", "chosen minus it", "effective_classes"):
        assert part in text


def test_what_a_run_lacks_is_said_in_a_line(outputs):
    said = "\n".join(output["text"] for shown in outputs for output in shown if output["output_type"] == "stream")
    assert "nothing can be made from this run" in said  # it has no networks
    assert "Traceback" not in said
