"""The ledger: reads and writes one row in a Parquet file for each attempt at a trial."""

from degan_search.ledger.read import Run, broken, curves, load
from degan_search.ledger.write import write_row, write_scores

__all__ = ["Run", "broken", "curves", "load", "write_row", "write_scores"]
