"""The stages of a trial: each is stepped until it is done, and can be saved after any step."""
