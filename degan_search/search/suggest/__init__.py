"""Which trial runs next, and which one is stopped early."""
