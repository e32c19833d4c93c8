"""A teacher of the user's own: accepted in three forms, or refused in one line; whom TorchScript is trusted by."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from degan_search.networks.table import build_classifier
from degan_search.stages import teacher as teachers
from degan_search.stages import teacher_file
from degan_search.system.errors import UserError
from degan_search.system.trust import TRUSTED
from degan_search.training.measures import predict

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning", "ignore:Detected pickle protocol"
)


def logits(teacher, true):
    return predict(teacher.model(), torch.from_numpy(true.images))


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
    assert mine.holdout_accuracy == teacher.holdout_accuracy
    assert (mine.classes, mine.takes.channels, mine.suffix) == (10, 1, path.suffix)
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
    old = {"_use_new_zipfile_serialization": False}
    yield "cut_old.pt", lambda p: (torch.save(state(), p, **old), cut(p)), "it is broken"
    yield "cut_short_old.pt", lambda p: (torch.save(state(), p, **old), cut(p, 0.02)), "is broken"
    yield "sparse_old.pt", lambda p: torch.save({"a": torch.eye(3).to_sparse()}, p, **old), "_rebuild_sparse_tensor"
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
    yield "script_dict.pt", lambda p: script(Wrapped(build_classifier("lenet", 10, 4))).save(str(p)), "script_dict.pt"
    yield "missing.pt", lambda p: None, "cannot be opened: No such file"
    yield "folder.pt", lambda p: p.mkdir(), "plain file is needed"
    yield "pipe.pt", lambda p: os.mkfifo(p), "plain file is needed"
    yield "zeros.pt", lambda p: p.symlink_to("/dev/zero"), "plain file is needed"
    yield "nowhere.safetensors", lambda p: p.symlink_to(p.parent / "none"), "cannot be opened"
    yield "huge.safetensors", huge, "at most 4,294,967,296 are read"
    yield "own.onnx", lambda p: p.write_bytes(b"x"), "is no ONNX file"
    yield "own.pt2", lambda p: p.write_bytes(b"x"), "neither TorchScript nor"
    yield "own", lambda p: p.write_bytes(b"x"), "neither TorchScript nor"


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
    assert trusted.holdout_accuracy > 0.5


def test_a_ledger_does_not_trust_for_the_user(tiny, true, weights, tmp_path, monkeypatch):
    path = tmp_path / "script.pt"
    script(weights).save(str(path))
    config = own(tiny, path, trusted=True)
    with pytest.raises(UserError, match="DEGAN_SEARCH_TRUSTED=1"):
        teachers.obtain(teacher_file.recorded(config), true, tmp_path)
    monkeypatch.setenv(TRUSTED, "1")
    assert teacher_file.recorded(config) == config
    monkeypatch.delenv(TRUSTED)
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
