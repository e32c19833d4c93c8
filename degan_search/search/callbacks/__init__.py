"""Callbacks of Ray Tune: the recorder of rows, the progress bar, trackers."""
