"""The ledger: a row in Parquet for each trial; what reads and writes it whole."""

from degan_search.ledger.read import Run, broken, curves, load
from degan_search.ledger.write import write, write_scores

__all__ = ["Run", "broken", "curves", "load", "write", "write_scores"]
