"""The page's text and tables, without the table of all trials."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.agreement import without_true_data
from analysis.regret import regret
from analysis.report.tables import TEXT, by_class, front, regrets, results, text
from analysis.statistics import wilson
from analysis.tables.table import table
from degan_search.ledger import cost
from degan_search.ledger.columns import Phase, State
from degan_search.settings.methods import METHODS
from degan_search.storage.layout import CLASSES
from degan_search.system.errors import UserError

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
"""Commands that a reader may want next, and what each is for."""
NONE = "none: judged by agreement with the teacher"
FAILED = 200
"""Failed trials listed at most."""


def page(run: Path, frame: pd.DataFrame, goals: Sequence[str]) -> dict[str, Any]:
    """Return the template's values: name, lead, summary, tables with their notes, failures, files, commands.

    `goals`: of the search.
    """
    about = _json(run / "run.json")
    failed = frame[frame["state"] == State.FAIL].sort_values("started", ascending=False, kind="stable")
    columns = ["trial_id", "cell", "attempt", "gan_steps", "finished", "reason"]
    return {
        "name": run.resolve().name,
        "empty": frame.empty,
        "made": bool(about.get("made")),
        "summary": list(_summary(run, frame, about)),
        "results": _or_note(lambda: results(table(frame))) if len(frame) else {"note": "No trials yet."},
        "front": _or_note(lambda: front(frame, goals)) if len(goals) > 1 else None,
        "classes": by_class(frame, about.get(CLASSES)) if len(frame) else [],
        "regrets": _or_note(lambda: regrets(regret(frame))),
        "failed": [{name: text(row[name]) for name in columns} for row in failed.head(FAILED).to_dict("records")],
        "failures": len(failed),
        "files": {name: _read(run / name) for name in ("space.yaml", "run.json")},
        "commands": list(_commands(run, without_true_data(frame))),
    }


def _commands(run: Path, without: bool) -> Iterable[tuple[str, str]]:
    for command, why in COMMANDS.items():
        if without and command.startswith("regret"):
            continue
        yield f"degan-search {command}".format(run=shlex.quote(str(run))), why


def _learns_classes(frame: pd.DataFrame) -> bool:
    return bool((frame["config_task"] == "incremental").any())


def _or_note(made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is made, or a note that says why it cannot be made."""
    try:
        return made()
    except UserError as error:
        return {"note": f"{str(error)[:1].upper()}{str(error)[1:]}."}


def _summary(run: Path, frame: pd.DataFrame, about: dict[str, Any]) -> Iterable[tuple[str, str]]:
    if len(frame):
        learns, network = _learns_classes(frame), f"{_names(frame['config_teacher_network'])}, {_teacher(frame)}"
        yield "Old classes" if learns else "True data", _names(frame["config_teacher_dataset"]) or NONE
        yield "Network before" if learns else "Teacher", network
        if not learns:
            yield "Student", _names(frame["config_student_network"])
        yield "New classes" if learns else "Proxies", _names(frame["config_proxy"])
        methods = [name for name in METHODS if name in set(frame["config_method"])]
        yield "Methods", _names(pd.Series([*methods, *frame["config_method"].dropna()]))
        yield "Trials", _counts(frame)
        yield "Searched by", _names(frame["config_objective"])
        spent = cost.seconds(frame).sum() / 3600
        begun, ended = frame["started"].min(), frame["finished"].max()
        wall = (ended - begun).total_seconds() / 3600 if pd.notna(begun) and pd.notna(ended) else float("nan")
        yield "Time", f"{_hours(spent)} in trials" + ("" if pd.isna(wall) else f", {_hours(wall)} by the clock")
        yield "Held", cost.in_words(cost.held(frame))
        if pd.notna(begun):
            yield "When", f"{begun:%Y-%m-%d %H:%M} to {ended:%Y-%m-%d %H:%M} UTC"
        machines = frame[["host", "hardware", "device"]].dropna().drop_duplicates().head(5)
        if len(machines):
            yield "Machine", "; ".join(", ".join(map(text, machine)) for machine in machines.to_numpy().tolist())
    yield "On disk", _size(run)
    versions = about.get("versions")
    if isinstance(versions, dict) and versions:
        yield "Versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    if about.get("git_commit"):
        yield "Commit", str(about["git_commit"])[:12]


def _teacher(frame: pd.DataFrame) -> str:
    if without_true_data(frame):
        known = frame.dropna(subset=["teacher_check_accuracy", "n_check"])
        if known.empty:
            return "whose accuracy is not known without true data"
        share = wilson(float(known["teacher_check_accuracy"].iloc[0]), int(known["n_check"].iloc[0]))
        shown = f"{100 * share.mean:.1f}% [{100 * share.low:.1f}, {100 * share.high:.1f}]"
        return f"{shown} on the {share.n} labelled images of teacher.check"
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
    names = {Phase.SEARCH: "search trials", Phase.REPEAT: "repeats", Phase.FINAL: "final runs"}
    for phase, name in names.items():
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
    """Return the size of a folder's files as text; a running sweep may remove some meanwhile."""
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
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _read(file: Path) -> str | None:
    if not file.is_file():
        return None
    with file.open(encoding="utf-8", errors="replace") as text:
        return text.read(TEXT)
