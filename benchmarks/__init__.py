"""Measured figures; each script prints lines `name: value`, and writes them as JSON where `--json PATH` says."""
