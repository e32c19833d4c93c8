"""The teacher: trained once and cached; a user's own file, accepted in three forms or refused in one line."""

import dataclasses
import io
import os
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from degan_search.data import proxies
from degan_search.networks.table import build_classifier
from degan_search.stages import teacher as teachers
from degan_search.stages import teacher_file
from degan_search.system import seeds
from degan_search.system.errors import UserError
from degan_search.training.measures import accuracy, predict
from degan_search.training.resumable import snapshot

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning", "ignore:Detected pickle protocol"
)
SHORT = {"teacher.fit.steps": 8, "teacher.count": 100}


@pytest.fixture
def short(tiny):
    """A teacher of eight steps."""
    return tiny(SHORT).teacher


@pytest.fixture(scope="module")
def short_true(tiny):
    return teachers.true_images(tiny(SHORT).teacher, None)


def logits(teacher, true):
    return predict(teacher.model(), torch.from_numpy(true.images))


def test_true_images_are_split_and_fit_the_network(tiny):
    true = teachers.true_images(tiny().teacher, None)
    assert true.images.shape == (400, 1, 32, 32)
    assert sorted([*true.train, *true.held_out]) == list(range(400))
    assert len(true.held_out) == 80
    assert np.bincount(true.labels).tolist() == [40] * 10
    colour = teachers.true_images(tiny({"teacher.network": "alexnet"}).teacher, None)
    assert colour.images.shape == (400, 3, 32, 32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher.dataset": "noise/uniform"}, "'noise/uniform' must be labelled"),
        ({"teacher.dataset": "glyphs/[A]"}, "at least two classes"),
        ({"teacher.count": 10}, "leaves 8 training images, fewer than teacher.fit.batch_size = 16"),
        ({"teacher.count": 9999}, "digits has 1437 images"),
        ({"teacher.network": "lenett"}, "teacher.network 'lenett' is unknown; known: alexnet"),
    ],
)
def test_true_images_that_cannot_serve_are_refused(tiny, change, said):
    with pytest.raises(UserError) as error:
        teachers.true_images(tiny(change).teacher, None)
    assert said in str(error.value)


def test_a_trained_teacher_knows_its_classes(teacher, true):
    held_out = torch.from_numpy(true.images[true.held_out]), torch.from_numpy(true.labels[true.held_out])
    assert teacher.held_out_accuracy == accuracy(predict(teacher.model(), held_out[0]), held_out[1]) > 0.5
    assert (teacher.classes, teacher.channels) == (10, 1)
    model = teacher.model()
    assert not any(weight.requires_grad for weight in model.parameters())
    assert not any(module.training for module in model.modules())


def test_the_cached_teacher_is_not_trained_again(short, short_true, tmp_path):
    heard = []
    first = teachers.obtain(short, short_true, tmp_path, heard.append)
    assert heard[-1].step == 8
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert sorted(path.suffix for path in files) == [".json", ".safetensors"]
    heard.clear()
    second = teachers.obtain(short, short_true, tmp_path, heard.append)
    assert not heard
    assert first == second
    assert {path: path.stat().st_mtime_ns for path in files} == files


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"held_out_accuracy": null}'])
def test_a_broken_cache_says_what_to_remove(content, short, short_true, tmp_path):
    teachers.obtain(short, short_true, tmp_path)
    facts = next(tmp_path.glob("*.json"))
    facts.write_text(content)
    with pytest.raises(UserError, match=f"{facts.name} is broken; remove it"):
        teachers.obtain(short, short_true, tmp_path)


def test_training_again_gives_the_same_teacher(short, short_true, tmp_path):
    torch.manual_seed(1)
    one = teachers.obtain(short, short_true, tmp_path / "one")
    torch.manual_seed(2)
    assert teachers.obtain(short, short_true, tmp_path / "two") == one


def first_loss(tiny, **changes):
    """The loss of a teacher's first step, on all of its training images as one batch."""
    step = {"teacher.fit.batch_size": 80, "teacher.fit.steps": 1, "teacher.fit.epochs": 1, "teacher.count": 100}
    config, heard = tiny(step, changes).teacher, []
    true = teachers.true_images(config, None)
    teachers.train(config, true, heard.append)
    return heard[0].loss, true, config


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_either_loss_has_its_value(loss, tiny):
    value, true, config = first_loss(tiny, **{"teacher.loss": loss})
    with seeds.seeded(config.seed, "teacher", "weights"):
        model = build_classifier("lenet", 10, 4)
    outputs = predict(model, torch.from_numpy(true.images[true.train])).double().numpy()
    right = np.eye(10)[true.labels[true.train]]
    if loss == "cross_entropy":
        expected = -(right * (outputs - np.log(np.exp(outputs).sum(1, keepdims=True)))).sum(1).mean()
    else:
        sure = 1 / (1 + np.exp(-outputs))
        expected = -(right * np.log(sure) + (1 - right) * np.log(1 - sure)).mean()
    assert value == pytest.approx(expected, rel=1e-5)


def test_training_goes_on_from_any_step(tiny):
    fit = {"steps": 8, "steps_per_epoch": 3, "batch_size": 8, "augment": True}
    config = tiny({"teacher": {"network": "alexnet", "width": 2, "count": 40, "fit": fit}}).teacher
    true = teachers.true_images(config, None)
    training, reports, states = teachers.TeacherTraining(config, true), [], []
    while not training.done:
        reports.append(training.step())
        states.append(snapshot(training.state_dict()))
    assert [report.step for report in reports if report] == [3, 6, 8]
    for cut, state in enumerate(states):
        rest, left = teachers.TeacherTraining(config, true), reports[cut + 1 :]
        rest.load_state_dict(state)
        assert [rest.step() for _ in left] == left
        assert rest.done
        assert all(map(torch.equal, rest.model.state_dict().values(), training.model.state_dict().values()))


def test_images_are_augmented_if_asked_from_the_teachers_seed(tiny):
    torch.manual_seed(1)
    value, *_ = first_loss(tiny, **{"teacher.fit.augment": True})
    torch.manual_seed(2)
    assert first_loss(tiny, **{"teacher.fit.augment": True})[0] == value
    assert first_loss(tiny)[0] != value


def test_other_images_labels_or_settings_make_another_teacher(short, short_true, tmp_path):
    image, label = short_true.images.copy(), short_true.labels.copy()
    image[0, 0, 0, 0] ^= 1
    label[0] = (label[0] + 1) % 10
    cases = [
        (short, short_true),
        (short, dataclasses.replace(short_true, images=image)),
        (short, dataclasses.replace(short_true, labels=label)),
        (short.model_copy(update={"seed": 1}), short_true),
        (short.model_copy(update={"width": 2}), short_true),
    ]
    made = [teachers.obtain(config, true, tmp_path) for config, true in cases]
    assert len({teacher.hash for teacher in made}) == len(cases)
    assert len({teacher.data for teacher in made[2:]} | {made[0].data}) == len(cases) - 1
    assert len(list(tmp_path.glob("*.safetensors"))) == len(cases)


MEET = """
import sys, time
from pathlib import Path
import torch
from degan_search.settings.trial import TeacherConfig
from degan_search.stages import teacher as teachers
torch.set_num_threads(1)
config = TeacherConfig.model_validate_json(sys.argv[1])
true = teachers.true_images(config, None)
here = Path(sys.argv[2])
(here / f"ready-{sys.argv[3]}").touch()
while not (here / "go").exists():
    time.sleep(0.005)
heard = []
made = teachers.obtain(config, true, here / "cache", lambda progress: (heard.append(progress), time.sleep(0.05)))
print(made.hash, len(made.data), len(heard))
"""


def test_two_processes_train_it_once(short, tmp_path):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", MEET, short.model_dump_json(), str(tmp_path), name],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    until = time.monotonic() + 200
    while len(list(tmp_path.glob("ready-*"))) < 2 and time.monotonic() < until:
        assert all(process.poll() is None for process in both)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=100)[0].split() for process in both]
    assert said[0][:2] == said[1][:2]
    heard = sorted(int(count) for *_, count in said)
    assert heard[0] == 0 < heard[1]


def test_the_test_split_is_never_asked_for(short, short_true, tmp_path, monkeypatch):
    asked = []
    real = proxies.load

    def recording(name, split="train", *rest, **named):
        asked.append(split)
        return real(name, split, *rest, **named)

    monkeypatch.setattr(proxies, "load", recording)
    true = teachers.true_images(short, None)
    teachers.obtain(short, true, tmp_path)
    assert asked == ["train"]
    teachers.true_images(short, None, "test")  # the final evaluation's way
    assert asked == ["train", "test"]


def script(model):
    return torch.jit.script(model)


def own(tiny, path, **changes):
    return tiny({"teacher": {"path": str(path), **changes}}).teacher


@pytest.fixture(scope="module")
def weights(teacher):
    """The trained teacher's network and weights, as a user would have them."""
    model = build_classifier("lenet", 10, 4)
    model.load_state_dict(teacher.model().state_dict())
    return model.eval()


SCRIPTS = ("script.pt", "traced.pt")


@pytest.mark.parametrize("name", ["own.safetensors", "own.pt", "own.pth", *SCRIPTS])
def test_own_teachers_are_accepted(name, tiny, teacher, true, weights, tmp_path):
    path = tmp_path / name
    if name.endswith(".safetensors"):
        save_file(weights.state_dict(), path)
    elif name.startswith("own"):
        torch.save(weights.state_dict(), path)
    elif name == "script.pt":
        script(weights).save(str(path))
    else:
        torch.jit.trace(weights, torch.zeros(2, 1, 32, 32)).save(str(path))
    mine = teachers.obtain(own(tiny, path, trusted=name in SCRIPTS), true, tmp_path / "cache")
    torch.testing.assert_close(logits(mine, true), logits(teacher, true))
    assert mine.held_out_accuracy == teacher.held_out_accuracy
    assert (mine.classes, mine.channels, mine.suffix) == (10, 1, path.suffix)
    assert not (tmp_path / "cache").exists()  # nothing was trained
    assert not any(weight.requires_grad for weight in mine.model().parameters())
    x = torch.zeros(2, 1, 32, 32, requires_grad=True)
    mine.model()(x).sum().backward()  # the generator learns through it
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_own_teachers_of_other_weights_have_other_hashes(tiny, true, weights, tmp_path):
    hashes = []
    for add in (0.0, 0.1):
        state = {name: value + add for name, value in weights.state_dict().items()}
        save_file(state, tmp_path / "own.safetensors")  # under the same name
        hashes.append(teachers.obtain(own(tiny, tmp_path / "own.safetensors"), true, tmp_path).hash)
    assert hashes[0] != hashes[1]


class Bare(nn.Module):
    """Gives pixels as logits; has no weights."""

    def forward(self, x):
        return x.flatten(1)[:, :4].contiguous()


class Wrapped(nn.Module):
    """Gives its logits in a dictionary."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return {"logits": self.inner(x)}


def cut(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def pack(path):
    """Write an archive again with its parts compressed."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))


def huge(path):
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk


def misfits():
    """Each a name, what writes the file, and what the message must hold."""

    def state(classes=10, width=4, channels=1):
        return build_classifier("lenet", classes, width, channels).state_dict()

    yield "classes.safetensors", lambda p: save_file(state(classes=7), p), "10 classes"
    yield "classes.pt", lambda p: torch.save(state(classes=7), p), "10 classes"
    yield "width.safetensors", lambda p: save_file(state(width=5), p), "width 4"
    yield "channels.pt", lambda p: torch.save(state(channels=3), p), "does not fit network 'lenet'"
    yield "keys.pt", lambda p: torch.save({"weight": torch.zeros(3)}, p), "does not fit network 'lenet'"
    yield "tensor.pt", lambda p: torch.save(torch.zeros(3), p), "holds no plain state dict"
    yield "list.pt", lambda p: torch.save([1, 2], p), "holds no plain state dict"
    yield "numbers.pt", lambda p: torch.save({"weight": 3, 4: 5}, p), "holds no plain state dict"
    yield "text_keys.pt", lambda p: torch.save({3: torch.zeros(2)}, p), "holds no plain state dict"
    whole = {name: value.long() for name, value in state().items()}
    yield "integers.pt", lambda p: torch.save(whole, p), "is torch.int64, not torch.float32"
    yield "integers.safetensors", lambda p: save_file(whole, p), "is torch.int64, not torch.float32"
    nan = {name: value * float("nan") for name, value in state().items()}
    yield "nan.safetensors", lambda p: save_file(nan, p), "not finite"
    yield "bytes.pt", lambda p: torch.save(bytearray(9), p), "which no plain state dict needs"
    yield "sparse.pt", lambda p: torch.save({"a": torch.eye(3).to_sparse()}, p), "_rebuild_sparse_tensor"
    yield "packed.pt", lambda p: (torch.save(state(), p), pack(p)), "compressed parts"
    yield "old.pt", lambda p: torch.save(state(), p, _use_new_zipfile_serialization=False), "no whole zip archive"
    yield "module.pt", lambda p: torch.save(build_classifier("lenet", 10, 4), p), "neither TorchScript nor"
    yield "cut.safetensors", lambda p: (save_file(state(), p), cut(p)), "not a whole safetensors file"
    yield "cut.pt", lambda p: (torch.save(state(), p), cut(p)), "neither TorchScript nor"
    yield "cut_script.pt", lambda p: (script(build_classifier("lenet", 10, 4)).save(str(p)), cut(p)), "neither"
    yield "empty.pt", lambda p: p.write_bytes(b""), "neither TorchScript nor"
    yield "empty.safetensors", lambda p: p.write_bytes(b""), "not a whole safetensors file"
    yield "text.pth", lambda p: p.write_text("hello"), "neither TorchScript nor"
    yield "script_7.pt", lambda p: script(build_classifier("lenet", 7, 4)).save(str(p)), "gives 7 outputs"
    yield "script_rgb.pt", lambda p: script(build_classifier("lenet", 10, 4, 3)).save(str(p)), "does not take images"
    yield "script_bare.pt", lambda p: script(Bare()).save(str(p)), "script_bare.pt"
    frozen = "script_frozen.pt"
    yield frozen, lambda p: torch.jit.freeze(script(build_classifier("lenet", 10, 4).eval())).save(str(p)), frozen
    yield "script_dict.pt", lambda p: script(Wrapped(build_classifier("lenet", 10, 4))).save(str(p)), "script_dict.pt"
    yield "missing.pt", lambda p: None, "must be a file ending in .safetensors, .pt, .pth"
    yield "folder.pt", lambda p: p.mkdir(), "plain file is needed"
    yield "pipe.pt", lambda p: os.mkfifo(p), "plain file is needed"
    yield "zeros.pt", lambda p: p.symlink_to("/dev/zero"), "plain file is needed"
    yield "nowhere.safetensors", lambda p: p.symlink_to(p.parent / "none"), "cannot be opened"
    yield "huge.safetensors", huge, "at most 4,294,967,296 are read"
    yield "own.onnx", lambda p: p.write_bytes(b"x"), "must be a file ending in"
    yield "own.pt2", lambda p: p.write_bytes(b"x"), "must be a file ending in"
    yield "own", lambda p: p.write_bytes(b"x"), "must be a file ending in"


@pytest.mark.parametrize(("name", "write", "said"), list(misfits()), ids=[name for name, *_ in misfits()])
def test_own_teachers_that_do_not_fit_are_refused_in_one_line(name, write, said, tiny, true, tmp_path):
    write(tmp_path / name)
    with pytest.raises(UserError) as error:
        teachers.obtain(own(tiny, tmp_path / name, trusted=True), true, tmp_path / "cache")
    assert said in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_torchscript_runs_only_if_it_is_trusted(suffix, tiny, true, weights, tmp_path, monkeypatch):
    path = tmp_path / f"script{suffix}"
    script(weights).save(str(path))
    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
        with pytest.raises(UserError, match=r"is TorchScript, a program .* set teacher\.trusted"):
            teachers.obtain(own(tiny, path), true, tmp_path)
    trusted = teachers.obtain(own(tiny, path, trusted=True), true, tmp_path)
    assert trusted.held_out_accuracy > 0.5


def test_a_ledger_does_not_trust_for_the_user(tiny, true, weights, tmp_path, monkeypatch):
    path = tmp_path / "script.pt"
    script(weights).save(str(path))
    config = own(tiny, path, trusted=True)
    with pytest.raises(UserError, match="DEGAN_SEARCH_TRUSTED=1"):
        teachers.obtain(teacher_file.recorded(config), true, tmp_path)
    monkeypatch.setenv(teacher_file.TRUST, "1")
    assert teacher_file.recorded(config) == config
    monkeypatch.delenv(teacher_file.TRUST)
    teachers.obtain(config, true, tmp_path)
    assert teacher_file.recorded(config) == config  # as in the sweep that made the ledger


def test_trust_makes_no_other_teacher(tiny, true, weights, tmp_path):
    save_file(weights.state_dict(), tmp_path / "own.safetensors")
    hashes = [
        teachers.obtain(own(tiny, tmp_path / "own.safetensors", trusted=trusted), true, tmp_path).hash
        for trusted in (False, True)
    ]
    assert hashes[0] == hashes[1]


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def bomb_files(folder, target):
    (folder / "pickle.pt").write_bytes(pickle.dumps(Bomb(target)))
    torch.save({"0.weight": Bomb(target)}, folder / "zip.pt")
    torch.save({"0.weight": Bomb(target)}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    return sorted(path for path in folder.iterdir() if path.suffix in (".pt", ".pth"))


def test_a_pickle_bomb_is_refused_and_does_not_go_off(tiny, true, tmp_path):
    target = tmp_path / "went-off"
    files = bomb_files(tmp_path, target)
    assert len(files) == 3
    for path in files:
        with pytest.raises(UserError, match="neither TorchScript nor a plain state dict"):
            teachers.obtain(own(tiny, path), true, tmp_path)
        assert not target.exists()
    for path in files:  # they were live
        torch.load(path, weights_only=False) if path.name != "pickle.pt" else pickle.loads(path.read_bytes())
        assert target.exists()
        target.unlink()
