"""Final runs compared seed by seed: DeGAN's chosen configuration beside each other one."""

from __future__ import annotations

from dataclasses import asdict
from math import isnan, nan
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from tabulate import tabulate

from analysis.agreement import NO_TRUE_DATA, judged_by
from analysis.statistics import interval
from analysis.tables.cells import CHECK, NO_TEST, REFEREED, TEST, measured_where, refereed
from analysis.tables.cells import checked as check_columns
from analysis.tables.styles import BEST, checked, csv, teacher_checked
from analysis.tables.styles import refereed as best_epochs
from degan_search.ledger.columns import Phase, State, config_of
from degan_search.selection.paired_test import paired
from degan_search.settings.methods import TUNED
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError
from degan_search.system.whole_files import write_bytes

COLUMNS = ["dataset", "proxy", "count", "method", "combined", "lambda_e", "lambda_d", "gan_steps", "distill_steps"]
COLUMNS += ["accuracy", "low", "high", "n", "difference", "difference_low", "difference_high", "p", "pairs"]
COLUMNS += ["score", "teacher", "chosen", "agreement", "judged_by", *CHECK, *REFEREED]
ACCURACY, HELD_OUT = "test_accuracy", "oracle_accuracy"
UNTESTED = "Accuracy on held-out true training images, as the true data have no test images,"
NOTES = (
    "{what} in % with the 95% bootstrap interval over n seeds, which is too narrow where n is small. "
    "Difference: the chosen DeGAN above minus the row's, over the seeds that both have, "
    "with the 95% interval and two-sided p of the paired t-test, not corrected for the number of rows."
)

WITHOUT_TRUE_DATA = f"{NO_TRUE_DATA[0].upper()}{NO_TRUE_DATA[1:]} ({{by}}), which is no accuracy,"


def compare(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each configuration of the finished final runs, accuracies in percent on the test images.

    Where the true data have no test images, they are on the held-out ones, and `judged_by` is `oracle_accuracy`.

    Configurations are compared within one task, teacher, student, proxy (or bank of several) and length of training,
    over the seeds they share. In each such group DeGAN's chosen configuration comes first: of those with the most
    finished seeds the one with the best mean `score`, so neither test nor held-out true images choose it. `difference`
    is its accuracy minus the row's, with the interval and two-sided p of the paired t-test and the number of pairs;
    `low` and `high` are the bootstrap interval of the row's own mean. Groups without DeGAN are left out. `gan_steps`
    and `distill_steps` are means of what was run, so a baseline that is not step-matched shows.

    Without true data `accuracy` is null; `agreement` with the teacher stands for it, by the criterion `judged_by`, and
    the other figures are of that. `check` is the accuracy on the labelled images of `teacher.check`, if there are any;
    `best_on_test` that of each run's best epoch by the test images, and `gap` how far `accuracy` is below it.

    Args:
        frame: from `ledger.load`, evaluated.

    Raises:
        UserError: no finished final run of a method with weights.
    """
    done = frame[(frame["phase"] == Phase.FINAL) & (frame["state"] == State.COMPLETE)]
    configs = pd.Series({index: config_of(row) for index, row in done.iterrows()}, dtype=object)
    rows: list[dict[str, Any]] = []
    for _, group in done.groupby(configs.map(_setting), sort=False):
        if group["config_method"].isin(TUNED).any():
            rows += _rows(group, configs[group.index])
    if not rows:
        raise UserError(
            f"no finished final run of a method with weights ({', '.join(TUNED)}): `degan-search finals RUN` makes them"
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def render(table: pd.DataFrame, style: Literal["simple", "github"] = "simple") -> str:
    """Return a `compare` table as text or as Markdown, with a line below that explains the figures."""
    shown = pd.DataFrame(
        {
            "proxy": table["proxy"],
            "method": table["method"]
            + table["chosen"].map({True: " (chosen)", False: ""})
            + table["combined"].map(" ({})".format, na_action="ignore").fillna(""),
            "lambda_e, lambda_d": [_weights(row) for row in table.to_dict("records")],
            "GAN steps": table["gan_steps"].map("{:.0f}".format),
            "distillation steps": table["distill_steps"].map("{:.0f}".format),
            **_figures(table),
            "n": table["n"],
            "chosen minus it": [
                _with_interval(*row)
                for row in table[["difference", "difference_low", "difference_high"]].to_numpy(dtype=float)
            ],
            "p": ["" if isnan(p) else f"{p:.2g}" for p in table["p"]],
            "pairs": ["" if isnan(pairs) else f"{pairs:.0f}" for pairs in table["pairs"]],
        }
    )
    teachers = ", ".join(
        f"{dataset} {teacher:.1f}"
        for dataset, teacher in table.groupby("dataset", sort=False)["teacher"].mean().items()
        if not isnan(teacher)
    )
    text = tabulate(shown.to_dict("list"), headers="keys", tablefmt=style, disable_numparse=True)
    by = table["judged_by"]
    judged = ", ".join(by[by != HELD_OUT].dropna().unique())
    what = ["Test accuracy"] if by.isna().any() else []
    what += [UNTESTED] if (by == HELD_OUT).any() else []
    what += [WITHOUT_TRUE_DATA.format(by=judged)] if judged else []
    notes = NOTES.format(what=" or ".join(what)) + (f" Teacher: {teachers or 'not measured'}." if not judged else "")
    refereed_as = BEST if table["best_on_test"].notna().any() else ""
    return "\n\n".join([text, *filter(None, [notes, refereed_as, teacher_checked(table)])]) + "\n"


def _figures(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns of accuracies and agreements as text, without those that hold nothing."""
    columns = {}
    tested, held_out = table["judged_by"].isna(), table["judged_by"] == HELD_OUT
    for title, of, mean in (
        ("test accuracy", tested, "accuracy"),
        ("held-out accuracy", held_out, "accuracy"),
        ("agreement", ~(tested | held_out), "agreement"),
    ):
        if of.any():
            columns[title] = [_with_interval(*row) for row in _bounded(table.where(of), mean)]
    if table["best_on_test"].notna().any():
        cells = [best_epochs(row) for row in table.to_dict("records")]
        columns |= {name: [cell[name] for cell in cells] for name in cells[0]}
    if table["check"].notna().any():
        columns["accuracy"] = [checked(row) for row in table.to_dict("records")]
    return columns


def _bounded(table: pd.DataFrame, mean: str) -> np.ndarray:
    return table[[mean, "low", "high"]].to_numpy(dtype=float)


def save(table: pd.DataFrame, folder: Path) -> None:
    """Write a `compare` table as `finals.csv` (every column) and `finals.md`.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        write_bytes(folder / "finals.csv", csv(table).encode())
        write_bytes(folder / "finals.md", render(table, "github").encode())
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None


def _setting(config: TrialConfig) -> tuple[Any, ...]:
    """Return what compared runs share: task, teacher, student, proxy or bank of proxies, and lengths of training."""
    gan = config.gan
    lengths = (
        (part.steps, None if part.steps else part.epochs, part.batch_size, part.batch_of)
        for part in (config.distill, config.distill_images, config.incremental)
    )
    shared = (config.task, config.teacher, config.student, config.bank.compared_on(config.proxy), config.count)
    return (*shared, gan.steps, gan.epochs, gan.batch_size, gan.batch_of, *lengths)


def _rows(group: pd.DataFrame, configs: pd.Series[Any]) -> list[dict[str, Any]]:
    # A trial that two runs repeat gave the same result and counts once.
    configurations = [
        rows.drop_duplicates("config_seed").set_index("config_seed").sort_index()
        for _, rows in group.groupby(configs.map(lambda config: config.model_copy(update={"seed": 0})), sort=False)
    ]
    tuned = [rows for rows in configurations if rows["config_method"].iloc[0] in TUNED]
    chosen = max(tuned, key=lambda rows: (rows["score"].count(), rows["score"].mean()))
    others = [rows for rows in configurations if rows is not chosen]
    return [_row(chosen) | {"chosen": True}, *(_row(rows) | _difference(chosen, rows) for rows in others)]


def _row(rows: pd.DataFrame) -> dict[str, Any]:
    first, measure = rows.iloc[0], _measure(rows)
    mean = asdict(interval(100 * rows[measure]))
    about = {name: first[f"config_{column}"] for name, column in (("proxy", "proxy"), ("method", "method"))}
    about |= {"dataset": first["config_teacher_dataset"], "count": first["config_count"]}
    if about["method"] in TUNED:
        about |= {name: first[f"config_gan_{name}"] for name in ("lambda_e", "lambda_d")}
    about["combined"] = _combined(config_of(first))
    about |= {name: rows[name].mean() for name in ("gan_steps", "distill_steps", "score")}
    is_accuracy = measure in (ACCURACY, HELD_OUT)
    return about | {
        "accuracy": mean["mean"] if is_accuracy else nan,
        "agreement": nan if is_accuracy else mean["mean"],
        "judged_by": None if measure == ACCURACY else measure,
        "low": mean["low"],
        "high": mean["high"],
        "n": mean["n"],
        "chosen": False,
        "teacher": 100 * rows[f"teacher_{measure if is_accuracy else ACCURACY}"].mean(),
        **check_columns(rows),
        **refereed(rows),
    }


def _measure(rows: pd.DataFrame) -> str:
    """Return the column by which these runs are compared: an accuracy, or without true data an agreement."""
    first = rows.iloc[0]
    if pd.isna(first["config_teacher_dataset"]):
        return judged_by(first["config_objective"])
    return HELD_OUT if measured_where(rows, TEST) == NO_TEST else ACCURACY


def _combined(config: TrialConfig) -> str | None:
    """Return what tells students of several generators apart, such as `4, balanced`; None for every other method."""
    if not config.combine.members:
        return None
    parts = [str(len(config.combine.members)), *(["balanced"] if config.combine.balance else [])]
    parts += [f"{config.distill.mix_proxy:.0%} proxy images"] if config.distill.mix_proxy else []
    parts += ["and half-trained"] if config.combine.early else []
    return ", ".join(parts)


def _difference(chosen: pd.DataFrame, rows: pd.DataFrame) -> dict[str, float]:
    seeds = chosen.index.intersection(rows.index)
    test = paired(*(100 * side.loc[seeds, _measure(side)] for side in (chosen, rows)))
    return {
        "difference": test.difference,
        "difference_low": test.low,
        "difference_high": test.high,
        "p": test.p,
        "pairs": test.n,
    }


def _weights(row: dict[Any, Any]) -> str:
    return "" if isnan(row["lambda_e"]) else f"{row['lambda_e']:.3g}, {row['lambda_d']:.3g}"


def _with_interval(mean: float, low: float, high: float) -> str:
    if isnan(mean):
        return ""
    return f"{mean:.1f}" + ("" if isnan(low) else f" [{low:.1f}, {high:.1f}]")
