"""Images from a finished trial's generator: what the files hold, and that every reader of ours takes them again."""

import json
import resource
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torchvision.datasets import ImageFolder

from degan_search import ledger
from degan_search.data import write
from degan_search.data.images import denormalise, to_input
from degan_search.data.sets import load_set
from degan_search.evaluation import networks
from degan_search.ledger.columns import config_columns, config_of
from degan_search.products.images import Order, _fits, generate
from degan_search.settings.resolve import trial_config
from degan_search.stages.image_sources import GeneratorSource
from degan_search.system import seeds
from degan_search.system.errors import UserError
from degan_search.training.measures import predict

READ_AS = {"folders": "folder", "parquet": "parquet", "npz": "npz"}
formats = pytest.mark.parametrize("kind", write.FORMATS)


def read(kind, path, channels):
    """The images as a teacher takes them, labels and class names, through the names that a proxy has."""
    loaded = load_set(f"{READ_AS[kind]}:{path}", "train")
    return to_input(loaded.images, channels), loaded.labels, loaded.classes


def hidden_or_not(folder):
    return sorted(path.name for path in folder.iterdir())


class TestWritten:
    """What the files of each format hold."""

    @pytest.mark.parametrize("channels", [1, 3])
    @formats
    def test_comes_back_bit_for_bit(self, kind, channels, tmp_path, monkeypatch):
        monkeypatch.setattr(write, "ROW_GROUP", 8)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (30, channels, 32, 32), np.uint8)
        labels = rng.permutation(np.arange(30) % 3)
        soft = rng.random((30, 3), np.float32)
        with write.writing(tmp_path / "made", kind, ("Bag", "cat", "dog"), {"seed": 5}) as add:
            for part in np.split(np.arange(30), [1, 20]):
                add(images[part], labels[part], soft[part])
            assert not (tmp_path / "made").exists()
        assert hidden_or_not(tmp_path) == ["made"]
        order = np.argsort(labels, kind="stable") if kind == "folders" else np.arange(30)
        got, got_labels, classes = read(kind, tmp_path / "made", channels)
        np.testing.assert_array_equal(got, images[order])
        np.testing.assert_array_equal(got_labels, labels[order])
        assert classes == ("Bag", "cat", "dog")

    def test_npz_has_soft_labels_names_and_source(self, tmp_path):
        soft = np.array([[0.25, 0.75], [1, 0]], np.float32)
        with write.writing(tmp_path / "a.npz", "npz", ("cat", "dog"), {"seed": 5}) as add:
            add(np.zeros((2, 1, 32, 32), np.uint8), np.array([1, 0]), soft)
        with np.load(tmp_path / "a.npz") as archive:
            np.testing.assert_array_equal(archive["soft"], soft)
            assert archive["classes"].tolist() == ["cat", "dog"]
            assert json.loads(str(archive["about"])) == {"seed": 5}

    def test_parquet_has_row_groups_and_the_hubs_layout(self, tmp_path, monkeypatch):
        monkeypatch.setattr(write, "ROW_GROUP", 4)
        with write.writing(tmp_path / "a.parquet", "parquet", ("cat", "dog"), {}) as add:
            add(np.zeros((9, 3, 32, 32), np.uint8), np.zeros(9, np.int64), np.ones((9, 2), np.float32))
        file = pq.ParquetFile(tmp_path / "a.parquet")
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 4, 1]
        features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
        assert features["label"] == {"names": ["cat", "dog"], "_type": "ClassLabel"}
        assert pd.read_parquet(tmp_path / "a.parquet")["image"][8]["path"] == "00000008.png"

    def test_folders_keep_the_number_of_a_class_without_images(self, tmp_path):
        with write.writing(tmp_path / "a", "folders", ("ant", "bee", "cat"), {}) as add:
            add(np.zeros((2, 1, 32, 32), np.uint8), np.array([0, 2]), np.ones((2, 3), np.float32))
        assert ImageFolder(tmp_path / "a", allow_empty=True).targets == [0, 2]

    @formats
    def test_a_full_disk_leaves_nothing(self, kind, tmp_path):
        images = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), np.uint8)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # the disk refuses larger files
        try:
            with (
                pytest.raises(OSError, match="large"),
                write.writing(tmp_path / "made", kind, ("a", "b"), {}) as add,
            ):
                add(images, np.zeros(64, np.int64), np.ones((64, 2), np.float32))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert hidden_or_not(tmp_path) == []

    @formats
    def test_an_interruption_leaves_nothing(self, kind, tmp_path):
        with pytest.raises(KeyboardInterrupt), write.writing(tmp_path / "x" / "made", kind, ("a", "b"), {}) as add:
            add(np.zeros((2, 1, 32, 32), np.uint8), np.array([0, 1]), np.ones((2, 2), np.float32))
            raise KeyboardInterrupt
        assert hidden_or_not(tmp_path / "x") == []

    @formats
    def test_what_came_meanwhile_is_kept(self, kind, tmp_path):
        with pytest.raises(UserError, match="already there"), write.writing(tmp_path / "a", kind, ("a",), {}):
            (tmp_path / "a").write_text("mine")
        assert (tmp_path / "a").read_text() == "mine"


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (("airplane", "bird"), ["airplane", "bird"]),
        (("A", "B"), ["A", "B"]),
        (("t-shirt/top", "trouser"), ["t-shirt_top", "trouser"]),
        (("trouser", "bag"), ["0_trouser", "1_bag"]),
        (("../a", "/b"), ["a", "b"]),
        (("..", "b"), ["0_", "1_b"]),
        (("A", "a"), ["0_A", "1_a"]),
        (("a b", "a/b"), ["0_a_b", "1_a_b"]),
        (tuple("zyxwvutsrqp"), [f"{i:02}_{name}" for i, name in enumerate("zyxwvutsrqp")]),
        (("Straße", "é" * 300), ["Straße", "é" * 80]),
    ],
)
def test_folder_names_are_safe_and_keep_the_order(classes, names):
    assert write.folder_names(classes) == names
    assert sorted(names) == names


class TestGenerate:
    """From a run's folder to files."""

    @formats
    def test_reads_as_a_proxy_with_the_teachers_classes(self, kind, finished_run, teacher, tmp_path):
        made = generate(finished_run, "search-0000", Order(700, kind), tmp_path / "made")
        images, labels, classes = read(kind, tmp_path / "made", 1)
        predicted = predict(teacher.model(), torch.from_numpy(images)).argmax(dim=1).numpy()
        assert classes == tuple(map(str, range(10))), "those without images too"
        np.testing.assert_array_equal(labels, predicted)
        assert len(set(labels)) > 2
        assert list(made.counts.values()) == np.bincount(predicted, minlength=10).tolist()
        assert (made.drawn, made.short) == (1024, ())

    def test_gives_the_images_that_distillation_sees(self, finished_run, teacher, tmp_path):
        generate(finished_run, "search-0000", Order(20, "npz", seed=3), tmp_path / "a.npz")
        row = networks.find(finished_run, "search-0000", "generator")
        generator = networks.load_generator(finished_run, "search-0000", config_of(row))
        source = GeneratorSource(generator, 4, teacher.model())
        images, _ = source.make(512, seeds.generator(3, "generate"))
        with np.load(tmp_path / "a.npz") as archive:
            np.testing.assert_array_equal(archive["images"], denormalise(images)[:20].numpy())
            logits = predict(teacher.model(), torch.from_numpy(archive["images"]))
            np.testing.assert_allclose(archive["soft"], logits.softmax(dim=1), atol=1e-6)

    def test_the_seed_decides_and_fewer_are_the_first(self, finished_run, tmp_path):
        for name, count, seed in (("a", 40, 0), ("b", 40, 0), ("few", 10, 0), ("other", 40, 1)):
            generate(finished_run, "search-0000", Order(count, "npz", seed=seed), tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
        images = {name: np.load(tmp_path / name)["images"] for name in ("a", "few", "other")}
        np.testing.assert_array_equal(images["few"], images["a"][:10])
        assert (images["other"] != images["a"]).any()

    def test_balances(self, finished_run, tmp_path):
        made = generate(finished_run, "search-0000", Order(50, "npz", balance=True), tmp_path / "a.npz")
        labels = np.load(tmp_path / "a.npz")["labels"]
        assert np.bincount(labels).tolist() == list(made.counts.values()) == [5] * 10
        assert made.short == ()

    def test_says_which_classes_are_short(self, finished_run, tmp_path):
        made = generate(finished_run, "search-0000", Order(1000, "npz", balance=True, draws=1), tmp_path / "a.npz")
        counts = np.bincount(np.load(tmp_path / "a.npz")["labels"], minlength=10)
        assert counts.tolist() == list(made.counts.values())
        assert counts.max() == 100
        assert made.short == tuple(str(label) for label in np.flatnonzero(counts < 100)) != ()
        assert made.drawn == 1024

    def test_keeps_the_first_that_find_room(self):
        room = np.array([1, 0, 2])
        labels = np.array([2, 0, 1, 0, 2, 2])
        assert _fits(labels, room).tolist() == [True, True, False, False, True, False]

    def test_without_a_trial_takes_the_only_one(self, finished_run, tmp_path):
        assert generate(finished_run, None, Order(2), tmp_path / "a").trial["trial_id"] == "search-0000"

    @pytest.mark.parametrize(
        ("trial", "order", "says"),
        [
            ("search-00", Order(1), "no trial 'search-00'; did you mean search-0000"),
            ("search-0001", Order(1), "search-0001 has no generator, as method 'proxy' distils from images"),
            ("search-0002", Order(1), r"search-0002 has no generator, as it did not finish \(PRUNED\)"),
            ("best", Order(0), "count = 0 must be 1 or more"),
            ("best", Order(1, draws=0), "draws = 0"),
            ("best", Order(15, balance=True), "15 cannot be shared equally by 10 classes; 20 can, and 10"),
            ("best", Order(1, "folder"), "no format 'folder'; did you mean folders"),
        ],
    )
    def test_refuses(self, trial, order, says, finished_run, tmp_path):
        with pytest.raises(UserError, match=says):
            generate(finished_run, trial, order, tmp_path / "a")
        assert hidden_or_not(tmp_path) == []

    def test_never_overwrites(self, finished_run, tmp_path):
        (tmp_path / "a").mkdir()
        with pytest.raises(UserError, match="already there"):
            generate(finished_run, "best", Order(1), tmp_path / "a")

    def test_refuses_other_true_images_than_the_trials(self, finished_run, tiny, tmp_path):
        run = shutil.copytree(finished_run, tmp_path / "digits")
        row = {"trial_id": "search-0000", "attempt": 2, "phase": "search", "state": "COMPLETE", "teacher_hash": "0"}
        ledger.write_row(run, row | config_columns(tiny()))
        with pytest.raises(UserError, match="other images"):
            generate(run, "search-0000", Order(1), tmp_path / "a", finished_run.parent)


class TestFind:
    """Which trial is meant."""

    def test_best_has_the_highest_score_of_those_with_the_network(self, finished_run):
        assert networks.find(finished_run, "best", "student")["trial_id"] == "search-0001"
        assert networks.find(finished_run, "best", "generator")["trial_id"] == "search-0000"
        assert networks.find(finished_run, "degan", "student")["trial_id"] == "search-0000"
        with pytest.raises(UserError, match=r"no trial of method 'combined' of .* has a student; others have one"):
            networks.find(finished_run, "combined", "student")

    def test_several_ask_for_a_choice(self, finished_run):
        with pytest.raises(UserError, match=r"--trial is needed, as 2 trials .*'best'.*search-0000"):
            networks.find(finished_run, None, "student")

    def test_a_run_without_files_says_so(self, finished_run, tmp_path):
        run = shutil.copytree(finished_run, tmp_path / "digits")
        shutil.rmtree(run / "trials")
        with pytest.raises(UserError, match=r"no trial of .* has a student"):
            networks.find(run, "search-0000", "student")

    def test_a_file_of_another_network_says_so(self, finished_run):
        with pytest.raises(UserError, match=r"generator\.safetensors does not fit search-0000"):
            networks.load_generator(finished_run, "search-0000", trial_config())
