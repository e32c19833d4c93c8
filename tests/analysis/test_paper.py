"""Every cell of the paper's three tables has a configuration in a shipped space."""

from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from degan_search.cli.main import app
from degan_search.data import proxies
from degan_search.search.planning import timed_steps
from degan_search.search.space import file as space_file
from degan_search.search.space.cell import cells
from degan_search.settings import lengths
from degan_search.settings.methods import METHODS

PAPER = Path(__file__).parents[2] / "analysis" / "paper"
SPACES = (
    "table1_cifar10",
    "table1_fashion_mnist",
    "table1_cifar100",
    "table2_cifar10",
    "table3_cifar100",
    "cell_cifar10",
)
CITED = ("teacher", "kimura")
"""Rows that no student of ours stands for: the teacher itself, and a figure that the paper only cites."""
OURS = {"true_data": "true", "noise": "noise/uniform"}
NETWORKS = {
    "cifar10": ("alexnet", "alexnet_half"),
    "fashion_mnist": ("lenet", "lenet_half"),
    "cifar100": ("inception_v3", "resnet18"),
}


@cache
def configurations(name):
    return [(cell, cell.example()) for cell in cells(space_file.load(name))]


def rows(table):
    frame = pd.read_csv(PAPER / f"{table}.csv", keep_default_na=False)
    return [pytest.param(row, id="-".join(map(str, row.values()))) for row in frame.to_dict("records")]


@pytest.mark.parametrize("row", rows("table1"))
def test_table_1(row):
    truth, method = row["true_dataset"], OURS.get(row["method"], row["method"])
    if method in CITED:
        return
    found = [
        config
        for _, config in configurations(f"table1_{truth}")
        if config.method == method and (config.proxy == row["proxy_dataset"] or row["proxy_dataset"] in ("", truth))
    ]
    assert found
    assert {config.teacher.dataset for config in found} == {truth}
    assert {(config.teacher.network, config.student.network) for config in found} == {NETWORKS[truth]}


@pytest.mark.parametrize("row", rows("table2"))
def test_table_2(row):
    proxy = OURS.get(row["proxy_dataset"], row["proxy_dataset"])
    found = [config for _, config in configurations("table2_cifar10") if config.proxy == proxy]
    assert row["method"] in [config.method for config in found]
    assert {(config.teacher.network, config.student.network) for config in found} == {NETWORKS["cifar10"]}


@pytest.mark.parametrize("row", rows("table3"))
def test_table_3(row):
    found = [config for _, config in configurations("table3_cifar100") if config.method == row["method"]]
    assert len({config.teacher.dataset for config in found}) == 3
    for config in found:
        assert config.task == "incremental"
        assert (config.teacher.network, config.student.network) == ("resnet32", "resnet32")
        assert config.proxy == config.teacher.dataset.replace("first", "next")


@pytest.mark.parametrize("name", SPACES)
def test_the_papers_size(name):
    for _, config in configurations(name):
        assert (config.gan.width, config.gan.latent, config.gan.batch_size, config.gan.epochs) == (64, 100, 2048, 200)
        assert config.teacher.width is config.student.width is config.count is None


@pytest.mark.parametrize("name", SPACES)
def test_the_papers_steps_fresh_noise_and_arithmetic(name):
    """As many GAN steps for every proxy, SVHN with its 73,257 images among them."""
    for _, config in configurations(name):
        images = proxies.size(config.proxy, None), proxies.parent_size(config.proxy, None)
        assert lengths.gan_lengths(config.gan, *images)[1] == 5000
        assert (config.precision, config.distill.pool_refresh) == ("float32", 1)


def test_svhn_has_a_space_with_the_steps_of_200_epochs_beside_5000():
    found = [config for _, config in configurations("svhn_steps_cifar10")]
    steps = {lengths.gan_lengths(config.gan, 73_257, 73_257)[1] for config in found}
    assert (steps, {config.proxy for config in found}) == ({5000, 7200}, {"svhn"})


def test_the_fast_space_is_the_papers_but_for_noise_and_arithmetic():
    fast, papers = (space_file.load(name) for name in ("table2_cifar10_fast", "table2_cifar10"))
    assert fast.trial == {}
    assert fast == papers.model_copy(update={"trial": {}, "description": fast.description})


def test_the_fast_cell_is_a_cell_but_for_lengths_noise_and_arithmetic():
    papers = {cell.label: config for cell, config in configurations("cell_cifar10")}
    for cell, config in configurations("cell_cifar10_fast"):
        paper = papers[cell.label]
        teacher = paper.teacher.model_copy(update={"fit": config.teacher.fit})
        changed = {"teacher": teacher, "distill": config.distill, "precision": config.precision}
        assert config == paper.model_copy(update=changed)
        assert config.teacher.fit == paper.teacher.fit.model_copy(update={"steps": 7500})
        assert config.distill == paper.distill.model_copy(update={"steps": 10_240, "pool_refresh": 1 / 16})


@pytest.mark.parametrize("name", [name for name in SPACES if name.startswith("table1")])
def test_every_baseline_is_there_twice(name):
    methods = {config.method for _, config in configurations(name)}
    assert {"true", "few_shot", "zskd", "proxy"} <= methods
    for method in methods & {name.removesuffix("_matched") for name in METHODS if METHODS[name].matched}:
        assert f"{method}_matched" in methods


@pytest.mark.parametrize("name", SPACES)
def test_a_dry_run_lists_every_cell_with_method_and_networks(name, monkeypatch):
    monkeypatch.setattr(
        timed_steps, "sweep_seconds", lambda *_: (1.0, 1.0)
    )  # it times steps, which has tests of its own
    done = CliRunner().invoke(app, ["sweep", name, "--dry-run"])
    assert done.exit_code == 0
    for cell, config in configurations(name):
        networks = f"{config.teacher.network} -> {config.student.network}"
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{cell.label}:"))
        assert f"proxy {config.proxy}," in line
        assert f"method {config.method}, {networks}" in line
