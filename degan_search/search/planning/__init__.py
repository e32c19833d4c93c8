"""How long it will take, and how many trials fit."""
