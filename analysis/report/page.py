"""The report page that `degan-search report` writes."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analysis.report import content, data, plots, samples
from degan_search import ledger
from degan_search.ledger.columns import REPORT_COLUMNS, score_schema, trial_schema
from degan_search.selection.pareto import goals_of
from degan_search.storage import layout
from degan_search.system.errors import UserError
from degan_search.system.whole_files import write_bytes

HERE = Path(__file__).parent


def write(
    run: Path,
    out: Path | None = None,
    importances: pd.DataFrame | None = None,
) -> Path:
    """Write a run's report page, one HTML file of at most about 15 MB, and return its path.

    Args:
        run: the run's folder.
        out: the file; `run/report.html` by default. Its folder must exist.
        importances: of the searched settings, columns `cell`, `parameter` and `importance` (0 to 1).

    Raises:
        UserError: no run there, a broken ledger, or no such folder to write into.
    """
    file = out or run / "report.html"
    text = render(run, file, importances)
    if not file.parent.is_dir():
        raise UserError(f"the report cannot be written to {file}: there is no folder {file.parent}")
    write_bytes(file, text.encode())
    return file


def render(
    run: Path,
    file: Path | None = None,
    importances: pd.DataFrame | None = None,
    version: str | None = None,
) -> str:
    """Return the page's HTML; arguments as of `write`, but for `version`, which makes the page refresh itself.

    Sample grids that the page does not hold are linked from the folder of `file`.

    Raises:
        UserError: no run there, or a broken ledger.
    """
    frame, curves = load(run)
    grids = samples.find(run, frame, file or run / "report.html")
    plotly, script = get_plotlyjs(), (HERE / "report.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Without spaces and with keys in the given order; `tojson` escapes what could end a script element.
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    goals = goals_of(run)
    page: dict[str, Any] = content.page(run, frame, goals)
    return environment.get_template("report.html.j2").render(
        **page,
        grids=grids,
        trials_data=data.trials(frame, grids),
        curves_data=data.curves(curves),
        figures=plots.figures(frame, curves, importances, goals),
        version=version,
        css=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        plotly=Markup(plotly),
        script=Markup(script),
        policy=_policy(plotly, script),
    )


def load(run: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the ledger's trials and curves; empty ones for a sweep that has just begun.

    Raises:
        UserError: no run there, or a broken ledger.
    """
    begun = (run / "space.yaml").is_file() or (run / "run.json").is_file()
    if begun and not (run / layout.LEDGER).is_dir():
        scores = score_schema().names
        columns = ["run", *trial_schema().names, *(name for name in scores if name not in trial_schema().names)]
        return pd.DataFrame(columns=columns), pd.DataFrame(columns=["trial_id", "phase", "state", *REPORT_COLUMNS])
    return ledger.load(run), ledger.curves(run)


def _policy(*scripts: str) -> str:
    """Return a content security policy: the browser runs only the page's own scripts and loads nothing from elsewhere.

    Plotly's parallel coordinates generate code at run time, which needs 'unsafe-eval'.
    """
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src 'self' file: data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
