"""Files that a run names and does not hold: known by a hash, and refused by every command once they have changed."""

import io
import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from degan_search import ledger
from degan_search.cli.main import app
from degan_search.evaluation import accuracy
from degan_search.evaluation.accuracy import evaluate
from degan_search.ledger.columns import config_columns
from degan_search.products.images import Order, generate
from degan_search.search import resume as resuming
from degan_search.search import sweep as sweeping
from degan_search.search.finals.finals import finals
from degan_search.search.finals.lineup import Request
from degan_search.search.run import folder as run_folder
from degan_search.search.run.options import Options
from degan_search.search.space.schema import Space
from degan_search.settings.methods import normalised
from degan_search.system.errors import UserError
from degan_search.trial import named_files

QUIET = Console(file=io.StringIO())


@pytest.fixture
def own(tmp_path, teacher, monkeypatch):
    """A folder with the user's own teacher and photographs, in which commands are called."""
    torch.save(teacher.model().state_dict(), tmp_path / "teacher.pt")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    for index, image in enumerate(pixels):
        (tmp_path / "photos" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / "ab"[index % 2] / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def settings(tiny):
    changes = {"teacher.path": "teacher.pt", "proxy": "folder:photos", "count": None}
    return tiny(changes).model_dump(mode="json", exclude_none=True)


@pytest.fixture
def begun(own, settings, monkeypatch):
    """A run that was begun by a sweep whose trials did not run."""
    monkeypatch.setattr(sweeping, "carry_out", lambda *_: None)
    monkeypatch.setattr(resuming, "carry_out", lambda *_: None)
    return sweeping.sweep(Space(trial=settings), Options(own / "runs", "r"), QUIET)


@pytest.fixture
def finished(begun, own, tiny, finished_run):
    """The same run with a finished trial."""
    paths = {"teacher.path": f"{own}/teacher.pt", "proxy": f"folder:{own}/photos", "count": None}
    row = {"trial_id": "search-0000", "attempt": 1, "phase": "search", "number": 0, "cell": "a", "state": "COMPLETE"}
    ledger.write_row(begun, row | {"score": 0.5} | config_columns(normalised(tiny(paths))))
    shutil.copytree(finished_run / "trials" / "search-0000", begun / "trials" / "search-0000")
    return begun


def resume(run, data_dir=None, **more):
    return resuming.resume(Options(run.parent, run.name), QUIET, {"data_dir": data_dir} if data_dir else {}, **more)


def other_teacher(own):
    state = torch.load(own / "teacher.pt", weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, own / "teacher.pt")
    return f"{own}/teacher.pt"


def other_image(own):
    Image.new("RGB", (32, 32)).save(own / "photos" / "a" / "0.png")
    return f"folder:{own}/photos"


def other_class(own):
    (own / "photos" / "a" / "0.png").rename(own / "photos" / "b" / "0.png")
    return f"folder:{own}/photos"


def test_a_run_knows_its_files_by_whole_paths(begun, own):
    about = json.loads((begun / "run.json").read_text())
    assert sorted(about["files"]) == [f"{own}/teacher.pt", f"folder:{own}/photos"]
    assert about["space"]["trial"]["proxy"] == f"folder:{own}/photos"
    assert about["space"]["trial"]["teacher"]["path"] == f"{own}/teacher.pt"


def test_resume_takes_the_same_files_wherever_it_is_called(begun, own, monkeypatch):
    other = own / "elsewhere"
    (other / "photos").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(other / "photos" / "x.png")
    monkeypatch.chdir(other)
    before = (begun / "run.json").read_text()
    assert resume(begun) == begun
    assert json.loads((begun / "run.json").read_text())["files"] == json.loads(before)["files"]


@pytest.mark.parametrize("change", [other_teacher, other_image, other_class])
def test_resume_refuses_what_changed_unless_it_is_allowed(change, begun, own):
    (own / "photos" / "a" / "notes.txt").write_text("no image")
    resume(begun)
    name = change(own)
    with pytest.raises(UserError) as error:
        resume(begun)
    assert str(error.value).startswith(f"{name}: the content is not what {begun} was begun with; put it back.")
    resume(begun, allow_changed=True)
    resume(begun)  # the new one is the run's now


@pytest.mark.parametrize("change", [other_teacher, other_image])
def test_evaluation_and_finals_refuse_what_changed(change, finished, own, store, monkeypatch):
    name = change(own)
    monkeypatch.setattr(accuracy, "_accuracies", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(UserError, match=f"{name}: the content is not what {finished} was begun with"):
        evaluate(finished, None, store)
    with pytest.raises(UserError, match=f"{name}: the content is not what {finished} was begun with"):
        finals(Request(baselines=()), Options(finished.parent, str(finished)), QUIET)


def test_images_of_another_teacher_are_refused_but_the_proxy_is_not_needed(finished, own, tmp_path):
    other_image(own)
    assert generate(finished, "search-0000", Order(5, "npz"), tmp_path / "a.npz").drawn
    name = other_teacher(own)
    with pytest.raises(UserError, match=f"{name}: the content is not what {finished} was begun with"):
        generate(finished, "search-0000", Order(5, "npz"), tmp_path / "b.npz")


def test_relatedness_refuses_what_changed(finished, own):
    name = other_image(own)
    told = CliRunner().invoke(app, ["relatedness", "--teacher", str(finished), "--runs", str(finished)])
    assert told.exit_code == 2
    assert f"{name}: the content is not what {finished} was begun with" in " ".join(told.output.split())
    name = other_teacher(own)
    told = CliRunner().invoke(app, ["relatedness", "--teacher", str(finished), "--proxy", "digits"])
    assert told.exit_code == 2
    assert f"{name}: the content is not what {finished} was begun with" in " ".join(told.output.split())


def test_unchanged_files_are_measured(finished, store):
    assert evaluate(finished, None, store) == 1


def test_a_run_of_an_older_version_has_no_hashes(begun, own):
    about = json.loads((begun / "run.json").read_text())
    del about["files"]
    (begun / "run.json").write_text(json.dumps(about))
    other_teacher(own)
    assert named_files.recorded(begun) == {}
    resume(begun)
    assert sorted(named_files.recorded(begun)) == [f"{own}/teacher.pt", f"folder:{own}/photos"]


def test_the_space_of_the_first_call_may_be_given_again(begun, own, settings):
    (own / "space.yaml").write_text(json.dumps({"trial": settings}))
    resume(begun, file="space.yaml")
    assert run_folder.begun(begun, "space.yaml").changed == []


@pytest.mark.parametrize("name", ["npz:own.npz", "npz:own.npz/[a]"])
def test_archives_are_known_by_their_content(name, tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hashes = []
    for fill in (0, 1, 1):
        np.savez("own.npz", images=np.full((4, 32, 32, 3), fill, np.uint8))
        (digest,) = named_files.fingerprints([tiny({"proxy": name})]).items()
        hashes.append(digest)
    assert hashes[0] != hashes[1] == hashes[2]
    assert hashes[0][0] == "npz:own.npz"


def test_each_set_of_a_union_is_known_by_its_content(tmp_path, tiny):
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((4, 32, 32, 3), np.uint8))
    config = tiny({"proxy": f"npz:{tmp_path}/a.npz+digits+npz:{tmp_path}/b.npz/[0]", "teacher.check": None})
    before = named_files.fingerprints([config])
    assert list(before) == [f"npz:{tmp_path}/a.npz", f"npz:{tmp_path}/b.npz"]
    np.savez(tmp_path / "b.npz", images=np.ones((4, 32, 32, 3), np.uint8))
    assert named_files.differences(before, named_files.fingerprints([config])) == [f"npz:{tmp_path}/b.npz"]


def write_set(folder, fill):
    """Write a public set as it is downloaded, with images that nobody reads here."""
    for split in ("train", "test"):
        (folder / "cifar10").mkdir(parents=True, exist_ok=True)
        table = pa.table({"img": [{"bytes": bytes([fill])}] * 200, "label": list(range(10)) * 20})
        pq.write_table(table, folder / "cifar10" / f"{split}.parquet")


def test_downloaded_sets_are_known_by_their_content_wherever_they_lie(finished, own, settings, store):
    write_set(own / "data", 0)
    space = Space(trial=settings | {"proxy": "cifar10/[cat,dog]"})
    run = sweeping.sweep(space, Options(own / "runs", "downloaded", data_dir=own / "data"), QUIET)
    assert sorted(named_files.recorded(run)) == [f"{own}/teacher.pt", "cifar10/test", "cifar10/train"]
    (own / "data").rename(own / "moved")
    assert resume(run, data_dir=own / "moved") == run
    write_set(own / "moved", 1)
    says = rf"{own}/moved/cifar10/train\.parquet, {own}/moved/cifar10/test\.parquet: the content is not what {run} was"
    with pytest.raises(UserError, match=says):
        resume(run)
    with pytest.raises(UserError, match=says):
        named_files.check(run, [], ["cifar10/[cat]+digits"], own / "moved")
    named_files.check(finished, [], ["cifar10"], own / "moved")  # of a run that was begun without such hashes
    (own / "moved").rename(own / "gone")  # whoever needs it says so
    named_files.check(run, [], ["cifar10"], own / "moved")


def test_shards_are_known_by_their_content(tmp_path, tiny):
    for number in range(2):
        pq.write_table(pa.table({"a": [number]}), tmp_path / f"train-0000{number}-of-00002.parquet")
    config = tiny({"proxy": f"parquet:{tmp_path}/train"})
    before = named_files.fingerprints([config])
    pq.write_table(pa.table({"a": [2]}), tmp_path / "train-00001-of-00002.parquet")
    assert named_files.differences(before, named_files.fingerprints([config])) == [f"parquet:{tmp_path}/train"]


def test_what_is_not_there_is_said_whole(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"teacher.path '{tmp_path}/none.pt' cannot be opened: No such file"):
        named_files.fingerprints([tiny({"teacher.path": "none.pt"})])
    with pytest.raises(UserError, match=f"{tmp_path}/photos is not a folder"):
        named_files.fingerprints([tiny({"proxy": "folder:photos"})])


def test_the_code_of_networks_is_known_by_its_content(tmp_path, tiny):
    file = tmp_path / "net.py"
    file.write_text("def build(classes): ...")
    config = tiny({"student.network": f"{file}:build?width=2", "teacher.check": None})
    before = named_files.fingerprints([config])
    assert list(before) == [str(file)]
    (tmp_path / "run.json").write_text(json.dumps({"files": before}))
    named_files.check(tmp_path, [], [], None)
    file.write_text("def build(classes): pass")
    with pytest.raises(UserError, match=re.escape(f"{file}: the content is not what")):
        named_files.check(tmp_path, [], [], None)
