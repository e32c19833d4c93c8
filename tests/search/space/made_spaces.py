"""A small space file, and what tests of spaces do with one: write, read, see it refused, draw from it."""

import optuna
import pytest
import yaml

from degan_search.search.space import cell as spaces
from degan_search.search.space import file as space_file
from degan_search.system.errors import UserError

optuna.logging.set_verbosity(optuna.logging.WARNING)
SMALL = {
    "trial": {"teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}, "student": {"network": "lenet_half"}},
    "cells": {"proxy": ["noise/uniform", "digits"]},
    "parameters": {"gan.lambda_e": {"zero_or_log": [0.1, 10]}, "gan.lambda_d": [0, 5, 10]},
}


def write(folder, content, name="mine.yaml"):
    file = folder / name
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return str(file)


def read(folder, **changes):
    return space_file.load(write(folder, {**SMALL, **changes}))


def refused(call, *parts):
    """The message of the UserError, which is one line and holds these parts."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 2000
    for part in parts:
        assert part in message
    return message


def study(cell, seed=0):
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))
    for point in spaces.points(cell):
        made.enqueue_trial(point)
    return made


def draws(cell, count=60, seed=0):
    made = study(cell, seed)
    return [cell.configure(made.ask()) for _ in range(count)]
