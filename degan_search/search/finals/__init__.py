"""Final runs over several seeds."""
