"""The space files that come with degan_search; a package, so that they are found wherever it is installed."""
