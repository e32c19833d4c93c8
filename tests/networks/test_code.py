"""Networks of the user's own code, from files and packages, right and wrong."""

import re
import shutil
import sys
import textwrap

import pytest
import torch
from torch import nn

from degan_search.networks import of_code
from degan_search.networks.names import parts
from degan_search.networks.table import build_classifier, check_name, default_input
from degan_search.system import trust
from degan_search.system.errors import UserError
from degan_search.system.trust import TRUSTED

pytestmark = pytest.mark.usefixtures("seeded")

NET = """
    from torch import nn
    def build(classes, hidden=4, channels=3):
        return nn.Sequential(
            nn.Conv2d(channels, hidden, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(hidden, classes)
        )
"""


@pytest.fixture(autouse=True)
def modules_as_before(monkeypatch):
    """What a test imports is forgotten after it."""
    before = dict(sys.modules)
    monkeypatch.setattr(of_code, "_FILES", {})
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


def write(path, text=NET):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def test_a_function_of_a_file(tmp_path):
    file = write(tmp_path / "my_net.py")
    model = build_classifier(f"{file}:build", 7)
    assert model(torch.rand(2, 3, 20, 20)).shape == (2, 7)
    assert build_classifier(f"{file}:build?hidden=9", 7, channels=1)[0].weight.shape == (9, 1, 3, 3)
    check_name(f"{file}:build", 1, (40, 24))
    assert sys.modules["my_net"].build is of_code._FILES[file].build


def test_a_file_is_run_once_and_two_of_one_name_are_two(tmp_path):
    for folder, classes in (("a", 1), ("b", 2)):
        write(
            tmp_path / folder / "twice.py",
            f"""
            import pathlib
            from torch import nn
            pathlib.Path(__file__).with_name("log").open("a").write("run ")
            def build(classes):
                return nn.Linear(2, {classes})
            """,
        )
    for _ in range(2):
        for folder, out in (("a", 1), ("b", 2)):
            assert build_classifier(f"{tmp_path / folder}/twice.py:build", 5).out_features == out
    assert [(tmp_path / folder / "log").read_text() for folder in "ab"] == ["run ", "run "]


def test_a_file_hides_no_module(tmp_path):
    import json

    file = write(tmp_path / "json.py")
    assert isinstance(build_classifier(f"{file}:build", 7), nn.Module)
    assert sys.modules["json"] is json


def test_a_file_in_a_package_may_import_its_neighbours(tmp_path):
    write(tmp_path / "nets" / "__init__.py", "")
    write(tmp_path / "nets" / "parts.py")
    file = write(tmp_path / "nets" / "mine.py", "from nets.parts import build\nfrom . import parts\n")
    assert build_classifier(f"{file}:build", 7)[-1].out_features == 7
    assert of_code.source(parts(f"{file}:build")) == tmp_path / "nets"


def test_a_module_by_its_name_also_from_the_folder_of_the_call(tmp_path, monkeypatch):
    write(tmp_path / "own_package" / "__init__.py", "")
    write(tmp_path / "own_package" / "net.py")
    monkeypatch.chdir(tmp_path)
    assert build_classifier("own_package.net:build", 7)[-1].out_features == 7
    assert of_code.source(parts("own_package.net:build")) == tmp_path / "own_package"
    assert of_code.source(parts("torchvision.models:resnet18")) is None


def test_what_lies_elsewhere_is_found_by_its_stem(tmp_path, monkeypatch):
    """As on a worker, where Ray has put the file on sys.path and its own path leads nowhere."""
    write(tmp_path / "brought" / "sent_net.py")
    write(tmp_path / "brought" / "sent_nets" / "__init__.py", "")
    write(tmp_path / "brought" / "sent_nets" / "inner.py")
    monkeypatch.syspath_prepend(tmp_path / "brought")
    assert build_classifier("/elsewhere/sent_net.py:build", 7)[-1].out_features == 7
    assert build_classifier("/elsewhere/x/sent_nets/inner.py:build", 7)[-1].out_features == 7
    with pytest.raises(UserError, match=r"there is no file '/elsewhere/json\.py'"):
        build_classifier("/elsewhere/json.py:build", 7)


def test_what_code_says_that_it_takes(tmp_path):
    file = write(
        tmp_path / "says.py",
        """
        def a(classes): ...
        def b(classes): ...
        b.input_size = 48
        def c(classes): ...
        c.default_cfg = {"input_size": (1, 28, 30), "mean": (0.1,), "std": (0.3,)}
        def wrong(classes): ...
        wrong.input_size = "big"
        """,
    )
    other = write(tmp_path / "says_all.py", "input_size = (20, 24)\ndef a(classes): ...\n")
    assert default_input(f"{file}:a").shape == (3, 32, 32)
    assert default_input(f"{file}:b").shape == (3, 48, 48)
    given = default_input(f"{file}:c")
    assert (given.shape, given.mean, given.std) == ((1, 28, 30), (0.1,), (0.3,))
    assert default_input(f"{other}:a").size == (20, 24)
    with pytest.raises(UserError, match="input_size is 'big'"):
        default_input(f"{file}:wrong")


def test_code_that_cannot_be_built_without_weights_is_tried_with_some(tmp_path):
    file = write(
        tmp_path / "values.py",
        """
        import torch
        from torch import nn
        def build(classes):
            net = nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))
            net(torch.rand(1, 3, 32, 32)).sum().item()
            return net
        """,
    )
    before = torch.get_rng_state()
    check_name(f"{file}:build")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def build(classes):\n    return 3\n", r"returned a int; it must return an nn\.Module"),
        (
            "def build(classes):\n    raise OSError('a first line\\nand more')\n",
            r"net\.py, line 2: OSError: a first line",
        ),
        ("import nowhere_at_all\n", r"net\.py, line 1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def build(classes:\n", r"net\.py, line 1: SyntaxError"),
        ("raise SystemExit(3)\n", r"net\.py, line 1: SystemExit: 3"),
        ("def bild(classes): ...\n", "has no 'build'; did you mean bild"),
        ("build = 3\n", "build is no function"),
        ("def build(): ...\n", r"TypeError: build\(\) takes 0 positional"),
        (
            "from torch import nn\ndef build(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 5))\n",
            r"gives \(2, 5\) for 2 images and 3 classes, not \(2, 3\)",
        ),
        (
            "from torch import nn\ndef build(classes):\n    return nn.Linear(5, classes)\n",
            "does not work on images 3x32x32: mat1 and mat2",
        ),
    ],
)
def test_faulty_code_is_refused_in_one_line(tmp_path, text, said):
    file = write(tmp_path / "net.py", text)
    with pytest.raises(UserError, match=said) as caught:
        check_name(f"{file}:build", 3, (32, 32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{}/nothing.py:build", "there is no file"),
        ("no_such_package.net:build", "there is no module 'no_such_package'"),
        ("torch.no_such_module:build", "there is no module 'torch.no_such_module'"),
        (":build", "must be FILE.py:FUNCTION"),
        ("a b:build", "must be FILE.py:FUNCTION"),
        ("net.py:", "must be FILE.py:FUNCTION"),
        ("torch.nn:Flatten?classes=3", "not yours to set"),
    ],
)
def test_names_of_code_that_is_not_there(tmp_path, name, said):
    with pytest.raises(UserError, match=re.escape(said)):
        build_classifier(name.format(tmp_path), 3, channels=3, size=(32, 32))


def test_code_runs_only_where_the_user_named_it(tmp_path, monkeypatch):
    """A run may name any code; what its reader has named before is known by content, wherever it lies."""
    monkeypatch.delenv(TRUSTED)
    file = write(tmp_path / "net.py", NET + f"\n    open({str(tmp_path / 'ran')!r}, 'w')")
    for name in (f"{file}:build", "os:system"):
        with pytest.raises(UserError, match=f"set {TRUSTED}=1 if you know who wrote it"):
            build_classifier(name, 3)
    assert not (tmp_path / "ran").exists()
    of_code.vouch(parts(f"{file}:build"))
    moved = shutil.copy(file, tmp_path / "same.py")
    monkeypatch.setattr(trust, "_VOUCHED", set())  # another process
    build_classifier(f"{moved}:build", 3)
    assert (tmp_path / "ran").exists()
    write(file, NET + "\n    changed = True")
    with pytest.raises(UserError, match=TRUSTED):
        build_classifier(f"{file}:build", 3)
