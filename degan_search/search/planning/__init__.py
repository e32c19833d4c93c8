"""How long a sweep takes, and how many trials fit into a time budget."""
