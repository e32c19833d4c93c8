"""One trial, start to end; it knows nothing of Ray or of ledgers."""
