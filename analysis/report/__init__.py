"""The report page: a run's results as one HTML file that needs no network."""

from analysis.report.page import render, write

__all__ = ["render", "write"]
