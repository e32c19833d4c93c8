"""Somebody else's files and settings, broken at random: each is read or refused in one line, and runs no code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fuzz
import fuzz_readers
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from degan_search.ledger.columns import config_columns, config_of
from degan_search.search.space import check, schema
from degan_search.search.space import file as space_file
from degan_search.settings.resolve import flatten, parse, trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError

INPUTS = int(os.environ.get("FUZZ_INPUTS", "100000"))
"""Of all readers together, by `make faults`."""
SHARES = sum(reader.share for reader in fuzz_readers.READERS.values())
QUICK = 30
"""Inputs of each reader in `make test`."""

DEFAULTS = dict(flatten(TrialConfig().model_dump(mode="json")))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 300),
    st.floats(),
    st.floats(0, 1),
    st.text(max_size=8),
    st.sampled_from([value for value in DEFAULTS.values() if not isinstance(value, list)]),
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)
NAMES = st.sampled_from([*DEFAULTS, "teacher", "gan", "probe"]) | st.text(max_size=6)
SETTINGS = st.dictionaries(NAMES, SCALARS | ANYTHING, max_size=3)
PLAUSIBLE = st.fixed_dictionaries(
    {},
    optional={
        "proxy": st.sampled_from(["digits", "glyphs/[K-Z]", "photos"]),
        "method": st.sampled_from(["degan", "dcgan", "proxy"]),
        "seed": st.integers(0, 2**32 - 1),
        "gan.lambda_e": st.floats(0, 1e6),
        "gan": st.fixed_dictionaries({"steps": st.integers(1, 10**9), "width": st.integers(1, 512)}),
        "distill.milestones": st.lists(st.floats(0.01, 0.99), unique=True, max_size=3).map(sorted),
        "teacher.path": st.none() | st.text("abc/. é", max_size=9),
        "bank.generators": st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)).map(list), min_size=1, max_size=3),
    },
)
RANGES = st.fixed_dictionaries(
    {}, optional={name: st.lists(SCALARS, max_size=3) for name in ("range", "log", "int", "zero_or_log")}
)
SHORT = st.fixed_dictionaries(
    {"size": st.lists(st.integers(0, 4), min_size=2, max_size=2)},
    optional={
        "subset_of": st.lists(st.sampled_from(["digits", "photos", "glyphs/[A]", "glyphs/[A-C]"]), max_size=4),
        "classes_of": st.sampled_from(["digits", "photos", "cifar100/background_6", "folder:x"]),
        "superclasses": st.booleans(),
        "draws": st.integers(0, 30),
    },
)
PARAMETERS = st.dictionaries(
    st.sampled_from(["gan.lambda_e", "gan.lambda_d", "seed", "proxy"]) | NAMES,
    st.just({"log": [0.1, 10]}) | st.just({"int": [1, 9]}) | RANGES | SHORT | st.lists(SCALARS, max_size=3) | SCALARS,
    max_size=2,
)
PARTS = {
    "description": st.text(st.characters(exclude_categories=("C", "Z")), max_size=9),
    "trial": PLAUSIBLE | SETTINGS,
    "cells": st.fixed_dictionaries({}, optional={"method": st.just(["degan", "dcgan"]), "proxy": st.just(["digits"])}),
    "parameters": PARAMETERS,
    "when": st.lists(
        st.fixed_dictionaries({"if": st.just({"method": "degan"})}, optional={"parameters": PARAMETERS}), max_size=2
    ),
    "first": st.lists(st.dictionaries(NAMES, SCALARS, max_size=2), max_size=1),
    "search": st.fixed_dictionaries(
        {}, optional={"sampler": st.sampled_from(["gp", "tpe", "grid"]), "trials": SCALARS}
    ),
    "finals": st.none() | st.just({"seeds": [1, 2]}),
}
SPACES = st.fixed_dictionaries({}, optional=PARTS) | st.fixed_dictionaries(
    {}, optional={name: part | ANYTHING for name, part in PARTS.items()}
)
AT_EASE = settings(suppress_health_check=list(HealthCheck), max_examples=60, derandomize=True)
THOROUGH = settings(AT_EASE, max_examples=max(100, INPUTS // 50))


def configured(values):
    try:
        config = trial_config(values)
    except UserError:
        return
    assert parse(TrialConfig, json.loads(config.model_dump_json())) == config
    assert config_of({"trial_id": "x", **config_columns(config)}) == config


def spaced(values, folder):
    file = folder / "space.yaml"
    try:
        space = parse(schema.Space, values)
        check.check(space)
    except UserError:
        return
    file.write_text(space_file.dump(space), encoding="utf-8")
    assert space_file.load(str(file)) == space


@given(PLAUSIBLE | SETTINGS | ANYTHING.filter(lambda value: isinstance(value, dict)))
@AT_EASE
def test_settings_give_a_trial_that_reads_back_or_are_refused(values):
    configured(values)


@example({"when": [{"if": {"method": "degan"}, "parameters": {"gan.lambda_e": ["\x1f"]}}]})
@given(SPACES | ANYTHING)
@AT_EASE
def test_structures_give_a_space_that_reads_back_or_are_refused(tmp_path_factory, values):
    spaced(values, tmp_path_factory.getbasetemp())


@pytest.mark.faults
@given(PLAUSIBLE | SETTINGS | ANYTHING.filter(lambda value: isinstance(value, dict)))
@THOROUGH
def test_many_settings(values):
    configured(values)


@pytest.mark.faults
@given(SPACES | ANYTHING)
@THOROUGH
def test_many_structures(tmp_path_factory, values):
    spaced(values, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("name", fuzz_readers.READERS)
def test_broken_files_are_read_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = fuzz.fuzz(name, QUICK, 1, tmp_path)
    assert told["accepted"] + told["refused"] == QUICK


@pytest.mark.faults
@pytest.mark.parametrize("name", fuzz_readers.READERS)
def test_many_broken_files(name, tmp_path, capsys):
    inputs = -(-INPUTS * fuzz_readers.READERS[name].share // SHARES)
    program = [sys.executable, "-W", "ignore", str(Path(fuzz.__file__)), name, str(inputs), "0"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with capsys.disabled():
        told = json.loads(done.stdout)
        print(
            f"\n{name}: {told['inputs']:,} inputs in {told['seconds']:.0f} s, {told['accepted']:,} accepted, "
            f"{told['refused']:,} refused, memory grew by {told['grown'] / 1e6:.0f} MB"
        )


def test_what_the_fuzz_is_to_find_would_be_found(tmp_path, monkeypatch):
    """A pickle among the seeds makes its file when it is loaded without care."""
    import io

    import numpy as np

    monkeypatch.chdir(tmp_path)
    content, _ = fuzz_readers.archives(tmp_path)[2]
    np.load(io.BytesIO(content), allow_pickle=True)["images"]
    with pytest.raises(AssertionError, match="code ran"):
        fuzz.fuzz("npz", 1, 0, tmp_path)
