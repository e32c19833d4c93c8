"""A ledger as other tools read it, straight from its files."""

import duckdb
import pandas as pd
import polars as pl
import pytest

from degan_search import ledger
from degan_search.ledger.columns import config_columns


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny):
    """Two trials, one of which lacks nearly every measure, and the accuracies of the other."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    config = config_columns(tiny({"gan.lambda_e": 0.5}))
    about = {"attempt": 1, "phase": "search", "cell": "all", **config}
    report = {"budget": 5, "score": 0.25, "seconds": 1.0}
    ledger.write_row(
        folder, about | {"trial_id": "search-0000", "state": "COMPLETE", "score": 0.5, "reports": [report]}
    )
    ledger.write_row(folder, about | {"trial_id": "search-0001", "state": "FAIL", "reason": "diverged"})
    ledger.write_scores(folder, {"trial_id": "search-0000", "oracle_accuracy": 0.75, "n_oracle": 8})
    return folder


COLUMNS = ["trial_id", "state", "score", "config_gan_lambda_e", "reason"]


def rows(frame):
    return frame[COLUMNS].sort_values("trial_id").astype(object).where(frame[COLUMNS].notna(), None).to_numpy().tolist()


def test_duckdb(run):
    trials = duckdb.sql(f"select * from '{run}/ledger/*.parquet'")
    assert rows(trials.df()) == rows(ledger.load(run))
    joined = duckdb.sql(
        f"""select trial_id, score, oracle_accuracy
            from '{run}/ledger/*.parquet' left join '{run}/scores/*.parquet' using (trial_id) order by trial_id"""
    )
    assert joined.fetchall() == [("search-0000", 0.5, 0.75), ("search-0001", None, None)]
    curves = duckdb.sql(f"select trial_id, unnest(reports, recursive := true) from '{run}/ledger/*.parquet'").df()
    assert curves[["trial_id", "budget", "score"]].to_numpy().tolist() == [["search-0000", 5, 0.25]]


def test_polars(run):
    trials = pl.read_parquet(f"{run}/ledger/*.parquet")
    found = pd.DataFrame(trials.select(COLUMNS).to_dicts())
    assert rows(found) == rows(ledger.load(run))
    scores = pl.read_parquet(f"{run}/scores/*.parquet")
    joined = trials.join(scores, on="trial_id", how="left").sort("trial_id")
    assert joined["oracle_accuracy"].to_list() == [0.75, None]
    curves = trials.select("trial_id", "reports").explode("reports").drop_nulls().unnest("reports")
    assert curves.select("trial_id", "budget", "score").rows() == [("search-0000", 5, 0.25)]


def test_pandas_alone(run):
    trials = pd.read_parquet(run / "ledger")
    assert rows(trials) == rows(ledger.load(run))
