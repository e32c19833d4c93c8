"""A trial: what it is given, the order of its stages, and what it leaves."""
