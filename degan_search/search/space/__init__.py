"""Spaces: what a search varies."""
