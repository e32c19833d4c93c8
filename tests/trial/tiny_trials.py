"""What the tests of a trial know of the tiny one: its lengths, the methods that distil, and a student with dropout."""

from degan_search.settings.methods import METHODS

GAN_STEPS, DISTILL_STEPS, MOSAIC_STEPS = 12, 8, 4
DISTILLING = [name for name, method in METHODS.items() if method.distils and name != "combined"]
"""Alone: `combined` needs a search's generators, see `test_combined`."""
DROPOUT = {"student.network": "alexnet_half"}  # a student whose training needs torch's global generator
