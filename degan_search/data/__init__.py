"""Image sets by name, proxy subsets by name, one conversion to [-1, 1]."""
