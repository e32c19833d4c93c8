"""What a trial's stages share: losses, measures, the training loop, batches, saved state."""
