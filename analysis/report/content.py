"""What the page says in text and tables, apart from the table of all trials."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import choice
from analysis.figures.look import METHODS
from analysis.tables import HELD_OUT, MISSING, NO_PROXY, table
from degan_search.errors import UserError
from degan_search.records import Phase, State

COMMANDS = {
    "table {run}": "The result table again, beside the paper's",
    "regret {run}": "What choosing without true data cost",
    "best {run}": "The best configurations",
    "finals {run} --top 1 --per proxy --seeds 5": "The best again with fresh seeds, beside baselines",
    "figures {run}": "All figures as files",
    "generate {run} --trial best --out images": "Images from the best trial's generator",
    "export-student {run} --trial best --out student.pt2": "The best trial's student, to use elsewhere",
    "export {run} --optuna journal.log --tensorboard events": "For optuna-dashboard and TensorBoard",
    "report {run} --watch": "This page, refreshed while a sweep runs",
}
"""Commands to go on with, and what each is for."""
FAILED = 200
"""Failed trials listed at most."""
FORMATS = {"rank_correlation": ".2f", "of_random": ".2f", "lambda_e": ".3g", "lambda_d": ".3g", "hours": ".3g"}
"""Of the tables' numbers; others have one decimal."""
TEXT = 200_000
"""Characters of a file or reason shown at most."""


def page(run: Path, frame: pd.DataFrame, regret: pd.DataFrame | None) -> dict[str, Any]:
    """Return the template's values: name, lead, summary, tables with their notes, failures, files, commands."""
    about = _json(run / "run.json")
    failed = frame[frame["state"] == State.FAIL].sort_values("started", ascending=False, kind="stable")
    columns = ["trial_id", "cell", "attempt", "gan_steps", "finished", "reason"]
    return {
        "name": run.resolve().name,
        "empty": frame.empty,
        "made": bool(about.get("made")),
        "summary": list(_summary(run, frame, about)),
        "results": _told(lambda: results(table(frame))) if len(frame) else {"note": "No trials yet."},
        "regrets": _told(lambda: _regrets(choice.regret(frame) if regret is None else regret)),
        "failed": [{name: _shown(row[name]) for name in columns} for row in failed.head(FAILED).to_dict("records")],
        "failures": len(failed),
        "files": {name: _read(run / name) for name in ("space.yaml", "run.json")},
        "commands": [(f"degan-search {text}".format(run=shlex.quote(str(run))), why) for text, why in COMMANDS.items()],
    }


def results(tidy: pd.DataFrame) -> dict[str, Any]:
    """Return a `tables.table` for the template: the run's proxies by its methods, and all of its columns."""
    ran = tidy[(tidy["trials"] > 0) & (tidy["proxy"] != NO_PROXY)]
    methods = [*dict.fromkeys(ran["method"])]
    rows = []
    for proxy, cells in ran.groupby("proxy", sort=False):
        cells = cells.set_index("method")
        best = cells["ours"].idxmax() if cells["ours"].notna().any() else None
        by_method = cells.to_dict("index")
        rows.append((proxy, [_result(by_method.get(method)) | {"best": method == best} for method in methods]))
    notes = [
        "Student accuracy in %, mean ± sample standard deviation, with the number of seeds in brackets. Below it the "
        "95% bootstrap interval of the mean, the weights, and the paper's figure. Bold: the best of a proxy."
    ]
    if (ran["measured_on"] == HELD_OUT).any():
        notes.append("* The search's best trial, measured on the held-out true training images: no final runs yet.")
    if chosen := ", ".join(name for name in dict.fromkeys(ran["chosen_by"].dropna()) if name != "unknown"):
        notes.append(f"How the weights were chosen: {chosen}.")
    return {"methods": methods, "rows": rows, "notes": notes, "all": _plain_table(tidy)}


def _result(cell: dict[Any, Any] | None) -> dict[str, Any]:
    if cell is None or pd.isna(cell["ours"]):
        return {"text": MISSING, "details": []}
    spread = "" if pd.isna(cell["std"]) else f" ± {cell['std']:.1f}"
    star = "*" if cell["measured_on"] == HELD_OUT else ""
    details = []
    if pd.notna(cell["low"]):
        details.append(f"{cell['low']:.1f} to {cell['high']:.1f}")
    if pd.notna(cell["lambda_e"]):
        details.append(f"lambda_e {cell['lambda_e']:.3g}, lambda_d {cell['lambda_d']:.3g}")
    if pd.notna(cell["paper"]):
        details.append(f"paper {cell['paper']:.1f}")
    return {"text": f"{cell['ours']:.1f}{star}{spread} ({cell['n']})", "details": details}


def _regrets(table: pd.DataFrame) -> dict[str, Any]:
    """Return the regret tables, in percent points, as heads and rows."""
    means = choice.mean_regret(table)
    constant = [name for name in ("run", "dataset", "count") if name in table and table[name].nunique() < 2]
    return {"means": _plain_table(means), "each": _plain_table(table.drop(columns=constant)), "notes": []}


def _plain_table(table: pd.DataFrame) -> dict[str, Any]:
    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in table]
    return {
        "heads": list(zip((str(name).replace("_", " ") for name in table), numeric, strict=True)),
        "rows": [[_cell(str(name), value) for name, value in row.items()] for row in table.to_dict("records")],
    }


def _cell(name: str, value: Any) -> str:
    if isinstance(value, float) and pd.notna(value):
        text = format(value, FORMATS.get(name, ".1f"))
        return text if float(text) else text.lstrip("-")
    return _shown(value)


def _told(made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is made, or why it cannot be as its note."""
    try:
        return made()
    except UserError as error:
        return {"note": f"{str(error)[:1].upper()}{str(error)[1:]}."}


def _summary(run: Path, frame: pd.DataFrame, about: dict[str, Any]) -> Iterable[tuple[str, str]]:
    if len(frame):
        yield "True data", _names(frame["config_teacher_dataset"])
        yield "Teacher", f"{_names(frame['config_teacher_network'])}, {_teacher(frame)}"
        yield "Student", _names(frame["config_student_network"])
        yield "Proxies", _names(frame["config_proxy"])
        methods = [name for name in METHODS if name in set(frame["config_method"])]
        yield "Methods", _names(pd.Series([*methods, *frame["config_method"].dropna()]))
        yield "Trials", _counts(frame)
        yield "Searched by", _names(frame["config_objective"])
        spent = frame["seconds"].sum() / 3600
        begun, ended = frame["started"].min(), frame["finished"].max()
        wall = (ended - begun).total_seconds() / 3600 if pd.notna(begun) and pd.notna(ended) else float("nan")
        yield "Time", f"{_hours(spent)} in trials" + ("" if pd.isna(wall) else f", {_hours(wall)} by the clock")
        if pd.notna(begun):
            yield "When", f"{begun:%Y-%m-%d %H:%M} to {ended:%Y-%m-%d %H:%M} UTC"
        machines = frame[["host", "hardware", "device"]].dropna().drop_duplicates().head(5)
        if len(machines):
            yield "Machine", "; ".join(", ".join(map(_shown, machine)) for machine in machines.to_numpy().tolist())
    yield "On disk", _size(run)
    versions = about.get("versions")
    if isinstance(versions, dict) and versions:
        yield "Versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    if about.get("git_commit"):
        yield "Commit", str(about["git_commit"])[:12]


def _teacher(frame: pd.DataFrame) -> str:
    for column, images in (
        ("teacher_test_accuracy", "the test images"),
        ("teacher_oracle_accuracy", "held-out true images"),
        ("teacher_holdout_accuracy", "held-out true images"),
    ):
        values = dict.fromkeys(f"{100 * value:.1f}%" for value in frame[column].dropna())
        if values:
            return f"{' and '.join(values)} on {images}"
    return "accuracy not measured yet"


def _counts(frame: pd.DataFrame) -> str:
    words = {State.COMPLETE: "finished", State.PRUNED: "stopped early", State.FAIL: "failed"}
    parts = []
    for phase, name in ((Phase.SEARCH, "search trials"), (Phase.FINAL, "final runs")):
        states = frame.loc[frame["phase"] == phase, "state"]
        if len(states):
            counts = [f"{(states == state).sum():,} {word}" for state, word in words.items() if (states == state).any()]
            parts.append(f"{len(states):,} {name}: {', '.join(counts)}")
    return "; ".join(parts)


def _names(values: pd.Series[Any], most: int = 12) -> str:
    names = [str(value) for value in dict.fromkeys(values.dropna())]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"


def _size(folder: Path) -> str:
    """Return the size of a folder's files; those that a sweep removes meanwhile count nothing."""
    size = 0.0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += Path(parent, name).lstat().st_size
            except OSError:
                continue
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(file) or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8", errors="replace")[:TEXT] if file.is_file() else None


def _shown(value: Any) -> str:
    if value is None or pd.isna(value):
        return ""
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, pd.Timestamp) else str(value)[:TEXT]
