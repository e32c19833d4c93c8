"""All that knows Ray and Optuna: space, searcher, scheduler, trainable, sweep."""
