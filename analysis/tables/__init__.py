"""Tables of results, ours beside the paper's."""
