"""A tiny sweep by the command: in a process of its own, whose workers say what they were given, or in this one."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import yaml

from degan_search.search.space.cell import shared_configs
from degan_search.search.space.schema import Space
from degan_search.system import device
from degan_search.trial.inputs import prepare
from tests.cli.calls import call, write

GOOD = {"gan.lr": 0.002, "probe.lr": 0.003, "distill.lr": 0.003}
UNTRAINED, DIVERGES = 1e-9, 3  # with 3 the generator makes one image from step 3 on; larger rates do so later or not
SPACE = {
    "trial": {
        "count": 200,
        "teacher": {
            "dataset": "glyphs/[A-C]",
            "count": 300,
            "network": "lenet",
            "width": 4,
            "fit": {"steps": 100, "steps_per_epoch": 25, "lr": 0.003},
        },
        "student": {"network": "lenet", "width": 4},
        "gan": {"width": 2, "latent": 8, "steps": 61, "batch_size": 16, "batch_of": "used"},
        "distill": {"steps": 60, "steps_per_epoch": 30, "score_images": 64, "pool": 128, "lr": 0.003},
        "probe": {"at": [60], "steps": 200, "batch_size": 32},
        "bank": {"proxy_images": 40, "generators": [[0, 0]], "generated_images": 40},
    },
    "cells": {"proxy": ["glyphs/[K-Z]"], "method": ["degan"]},
    "parameters": {"gan.lr": [0.002, DIVERGES], "probe.lr": [0.003, UNTRAINED], "distill.lr": [0.003, 0.002]},
    # In one slot and in this order: a trial that ends, one whose probe is far worse, one that diverges, and
    # one as good as the first, whose files cannot be saved.
    "first": [GOOD, {**GOOD, "probe.lr": UNTRAINED}, {**GOOD, "gan.lr": DIVERGES}, {**GOOD, "distill.lr": 0.002}],
    "search": {"trials": 4},
    "asha": {"reduction_factor": 2},
    "finals": {"seeds": [5], "referee": True, "combine": None},
}


# The command, whose workers say after each step in which process they are and what it may use. They take CPUs under a
# name that no other sweep on this machine uses: whether a worker finds one free shall not depend on those.
MAIN = """
import json, os
from degan_search.cli.main import main
from degan_search.search import phase
from degan_search.search.workers import worker
from degan_search.system import cpus

class Telling(phase.DeganTrainable):
    def setup(self, *given, **named):
        cpus.CPU_NAME = os.environ["CPU_NAME"]
        super().setup(*given, **named)

    def step(self):
        result = super().step()
        about = {"trial": self.jobs[0].id, "process": os.getpid(), "inputs": id(self.inputs), "niceness": os.nice(0)}
        about |= {"cpus": sorted(os.sched_getaffinity(0)), "whole": worker.all_cpus_are_rays()}
        with open(os.environ["TOLD"], "a") as file:
            file.write(json.dumps(about) + "\\n")
        return result

phase.DeganTrainable = Telling
main()
"""


def share(space, cache):
    """Make here what a sweep's trials share: each worker that does it takes seconds to start."""
    device.set_up_torch(1)
    for config in shared_configs(Space.model_validate(space)):
        prepare(config, None, cache)


def resume(folder):
    """Resume a run by the command, in this process."""
    again = call("resume", folder)
    assert again.exit_code == 0, again.output


def sweep_here(folder, space, options=("--max-concurrent", "1")):
    """Run the command in this process, on what `share` made: for tests of what a sweep leaves."""
    share(space, folder / "runs" / "cache")
    ended = call("sweep", write(folder, space, "tiny.yaml"), "--storage", folder / "runs", *options)
    assert ended.exit_code == 0, (ended.output, ended.exception)
    return SimpleNamespace(out=ended.stdout, folder=folder / "runs" / "tiny", cache=folder / "runs" / "cache")


def run_sweep(folder, space, spoil=None, options=("--max-concurrent", "1")):
    """Run the command; `spoil` is called with the run's folder at the first line, before any trial starts."""
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(space, sort_keys=False))
    command = [sys.executable, "-c", MAIN, "sweep", str(file), "--storage", str(folder / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "TOLD": str(folder / "told")}
    environment["CPU_NAME"] = f"degan-search/test/{os.getpid()}"
    with (folder / "stderr").open("w+") as stderr:
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
        )
        assert process.stdout
        lines = [process.stdout.readline()]
        if spoil and lines[0]:
            spoil(folder / "runs" / "tiny")
        lines += process.stdout.readlines()
        code = process.wait(60)
        stderr.seek(0)
        return SimpleNamespace(
            code=code,
            out="".join(lines),
            err=stderr.read(),
            told=pd.read_json(folder / "told", lines=True),
            folder=folder / "runs" / "tiny",
            cache=folder / "runs/cache",
        )
