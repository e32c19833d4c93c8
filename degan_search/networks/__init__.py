"""Classifiers and the DCGAN; the classifiers' names are in `table`."""
