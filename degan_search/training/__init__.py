"""What the stages of a trial are made of: the loop that they share, its random numbers, its state."""
