"""Choosing among trials: which configuration is the best without true data, and which cannot win any more."""
