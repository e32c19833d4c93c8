"""Errors, seeds, devices and files: what everything else stands on."""
