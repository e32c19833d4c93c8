"""Numbers of images are checked by what sets are known to have; nothing is loaded."""

import pytest

from degan_search.data import proxies
from degan_search.search.space import check, file
from degan_search.settings.resolve import trial_config
from degan_search.system.errors import UserError
from degan_search.trial.numbers import check_numbers

INCREMENTAL = {"task": "incremental", "teacher": {"dataset": "cifar100/[apple,bear]", "network": "lenet"}}


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "none"))
    for module in (proxies, proxies.load_set.__globals__["parquet"]):
        for name in ("load", "load_set", "read"):
            monkeypatch.setattr(module, name, None, raising=False)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"proxy": "cifar100/background_6", "count": 5000}, "count = 5000: cifar100/background_6 has 3,000 images"),
        (
            {"proxy": "cifar100/[apple]", "gan": {"batch_of": "used"}},
            "has 500 images, fewer than gan.batch_size = 2048",
        ),
        ({"proxy": "photos", "method": "proxy", "count": 2000, "distill_images": {"batch_of": "used"}}, "leaves 1600"),
        ({"teacher": {"count": 60_000}}, "teacher.count = 60000: cifar10 has 50,000 images"),
        ({"teacher": {"dataset": "photos"}}, "teacher.dataset 'photos' must be labelled, with at least two classes"),
        ({"teacher": {"dataset": "cifar10/[cat]"}}, "must be labelled, with at least two classes"),
        ({"teacher": {"count": 70}}, "leaves 56 training images, fewer than teacher.fit.batch_size = 64"),
        ({"method": "few_shot", "shots": 5000}, "shots = 5000 true images of each of 10 classes"),
        (INCREMENTAL | {"proxy": "photos", "method": "degan"}, "the classes of proxy 'photos': it has 0"),
        (INCREMENTAL | {"proxy": "glyphs/[A,B]+photos", "method": "degan"}, "'glyphs/[A,B]+photos': it has 0"),
        ({"proxy": "glyphs/[A]+photos", "count": 12_000}, "count = 12000: glyphs/[A]+photos has 11,000 images"),
        ({"teacher": {"dataset": "digits/[0-4]+digits/[5-9]"}}, "must be labelled, with at least two classes"),
        (INCREMENTAL | {"proxy": "cifar100/[bear,whale]", "method": "degan"}, "bear of proxy"),
    ],
)
def test_what_cannot_fit_is_refused(settings, says):
    with pytest.raises(UserError) as caught:
        check_numbers(trial_config(settings), None)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("cifar100/background_6", 3000),
        ("glyphs/[A-C]", 3000),
        ("svhn", 73_257),
        ("svhn/[1]", None),
        ("digits/[1,2]", None),
        ("glyphs/[A-C]+photos", 13_000),
        ("photos+digits/[1,2]", None),
    ],
)
def test_sizes_of_what_a_name_stands_for(name, images):
    assert proxies.size(name) == images


def test_all_classes_of_a_set_have_as_many_images(monkeypatch):
    monkeypatch.undo()
    labels = proxies.load("glyphs").labels
    assert {int((labels == label).sum()) for label in range(36)} == {proxies.size("glyphs/[A]")}


@pytest.mark.parametrize("name", ["smoke", "table3_cifar100", "table1_cifar100", "cell_background_6"])
def test_shipped_spaces_fit(name):
    check.check_numbers(file.load(name), None)
