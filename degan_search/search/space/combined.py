"""Final runs of combined students: which cells have them, and under which name."""

from __future__ import annotations

from degan_search.search.space.cell import Cell, cells
from degan_search.search.space.schema import Space
from degan_search.settings.methods import COMBINED, METHODS, combined
from degan_search.settings.trial import ProbeConfig, TrialConfig


def combined_cells(space: Space) -> list[Cell]:
    """Return the cells whose best generators are combined: those that search the weights of a GAN."""
    if not (space.finals and space.finals.combine):
        return []
    return [cell for cell in cells(space) if combines(cell)]


def combines(cell: Cell) -> bool:
    """Return whether a cell's search leaves generators that can be combined: of a method with weights."""
    example = cell.example()
    return bool(cell.varies()) and METHODS[example.method].tuned and example.task == "distillation"


def combined_label(cell: Cell) -> str:
    """Return what the final runs of a cell's combined student have as their cell."""
    return cell.labelled(method=COMBINED)


def combined_example(cell: Cell) -> TrialConfig:
    """Return a configuration that takes as long as a cell's combined final runs, without their members."""
    finals = cell.space.finals
    assert finals and finals.combine, "the cell is one of combined_cells"
    return combined(cell.example().model_copy(update={"probe": ProbeConfig()}), (), (), finals.combine)
