"""The search, the only part that uses Ray and Optuna: spaces, suggestions, workers, sweeps, final runs."""
