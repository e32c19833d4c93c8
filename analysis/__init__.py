"""Tables, statistics and figures from finished trials; never runs one."""
