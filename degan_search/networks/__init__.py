"""The networks of the paper, each named once in `table.py`."""
