"""The command line: parse, call, print. One file for each kind of command; `main` joins them."""
