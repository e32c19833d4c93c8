"""What listens to a running search."""
