"""The settings of a trial, and the names that they may take."""
