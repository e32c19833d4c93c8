"""Names of folders in a run and beside it."""

from __future__ import annotations

CACHE = "cache"
"""Folder in the storage for teachers and banks, which its runs share."""

LEDGER = "ledger"
SCORES = "scores"
SPACE = "space.yaml"
"""File in a run with its space."""
ABOUT = "run.json"
"""File in a run with what it was begun with."""
CLASSES = "class_names"
"""Where ABOUT has the names of classes, by the teacher's hash."""
GENERATOR = "generator.safetensors"
"""File in a trial's folder with the generator that its student learned from."""
EARLY = "early_generator.safetensors"
"""File in a trial's folder with its generator after half of its steps."""
STUDENT = "student.safetensors"
"""File in a trial's folder with its student."""
