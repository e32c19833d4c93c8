"""Tune DeGAN: weights, proxy and budget, without the true data."""
