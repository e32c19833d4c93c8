"""The formats of an exported student: how each is written, loaded again, and tried on the check batch that it holds."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.func import functional_call

from degan_search.data.images import Images, normalise
from degan_search.system import untrusted
from degan_search.system.errors import UserError
from degan_search.system.weights_file import read_tensors, tensors_bytes

ABOUT = "about.json"
"""What the student is: classes, input, preprocessing, output, teacher, run, measures, configuration."""
CHECK = "check.npz"
"""Check images and the outputs expected for them."""
CHECK_TEXT = f"{CHECK}.base64"
"""The same as text, where a format holds text alone."""
PREPROCESSING = ("student.scale", "student.shift")
"""What a program holds beside the network's weights."""
MODEL, WEIGHTS = "model.pt2", "student.safetensors"
README = """\
The student {trial_id} of the run {run}: {input} to {output}. It needs torch alone:

import json, torch
student = torch.export.load("{model}").module()
images = torch.zeros({shape}, dtype=torch.uint8)  # yours: any number of images, pixels 0..255
classes = json.load(open("{about}", encoding="utf-8"))["classes"]
print([classes[label] for label in student(images).argmax(dim=1)])

{about}: class names, preprocessing, what was measured. {check}: images, and the outputs expected for them.
{weights}: the weights of the network {network} alone, without the preprocessing, as a state dict.
"""


class Student(nn.Module):
    """A student that takes bytes: pixels 0..255 are brought to [-1, 1] first."""

    def __init__(self, student: nn.Module, softmax: bool) -> None:
        super().__init__()
        self.student, self.softmax = student.requires_grad_(False), softmax

    def forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Return logits, or with `softmax` probabilities."""
        logits: Tensor = self.student(normalise(images))
        return logits.softmax(dim=1) if self.softmax else logits


@dataclass(frozen=True, eq=False)
class CheckBatch:
    """Images, uint8 [N, C, H, W], and the outputs that the student gave for them, float32 [N, K]."""

    images: Images
    outputs: Float32[np.ndarray, "n k"]

    def to_bytes(self) -> bytes:
        """Return the batch as a NumPy archive."""
        stream = io.BytesIO()
        np.savez_compressed(stream, images=self.images, outputs=self.outputs)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> CheckBatch:
        """Return what `to_bytes` wrote; raises UserError for an archive that would unpack to too much."""
        untrusted.check_zip(io.BytesIO(data), CHECK, untrusted.IMAGE_BYTES)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return cls(archive["images"], archive["outputs"])

    def to_text(self) -> str:
        """Return the archive as base64."""
        return base64.b64encode(self.to_bytes()).decode()


@dataclass(frozen=True, eq=False)
class Exported:
    """What is written: the student in eval mode, what it says of itself, and its check batch."""

    student: Student
    about: dict[str, Any]
    check: CheckBatch

    def program(self) -> torch.export.ExportedProgram:
        """Return the student as a program for any number of images."""
        example = torch.from_numpy(self.check.images[:1]).repeat(2, 1, 1, 1)  # one image would fix N to 1
        return torch.export.export(self.student, (example,), dynamic_shapes=self.shapes())

    @staticmethod
    def shapes() -> dict[str, Any]:
        """Return which sizes of the input are free, for torch's exporters."""
        return {"images": {0: torch.export.Dim("n", min=1)}}


Run = Callable[[Images], Float32[np.ndarray, "n k"]]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A student's file as another program sees it; all of `runs` should give the same outputs."""

    runs: tuple[Run, ...]
    about: dict[str, Any]
    check: CheckBatch


@dataclass(frozen=True)
class Format:
    """A format: the ending of its files, how it is written and loaded, and the libraries that it needs.

    `write` and `load` raise whatever their libraries raise.
    """

    suffix: str
    write: Callable[[Path, Exported], None]
    load: Callable[[Path], Loaded]
    needs: tuple[str, ...] = ()

    def check_libraries(self) -> None:
        """Raise UserError if a library that the format needs is not installed."""
        for name in self.needs:
            try:
                import_module(name)
            except ImportError:
                raise UserError(
                    f"{self.suffix} files need {name}, which is not installed: pip install 'degan-search[onnx]'"
                ) from None


def _write_pt2(path: Path, exported: Exported) -> None:
    extra = {ABOUT: json.dumps(exported.about, indent=1), CHECK_TEXT: exported.check.to_text()}
    with path.open("wb") as file:  # of a name, torch would want its own ending
        torch.export.save(exported.program(), file, extra_files=extra)


def _load_pt2(path: Path) -> Loaded:
    program, extra = _read_program(path)
    return Loaded((_runs(program.module()),), json.loads(extra[ABOUT]), _from_text(extra[CHECK_TEXT]))


def _write_onnx(path: Path, exported: Exported) -> None:
    """Write one file; names, facts and check batch are among its `metadata_props`."""
    onnx = import_module("onnx")
    program = torch.onnx.export(
        exported.program(),
        input_names=["images"],
        output_names=[exported.about["output"].split()[0]],
        dynamic_shapes=exported.shapes(),  # the program has them already; said again, N gets its name
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    about = {
        ABOUT: json.dumps(exported.about),
        "classes": json.dumps(exported.about["classes"]),
        CHECK_TEXT: exported.check.to_text(),
    }
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _load_onnx(path: Path) -> Loaded:
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    model = untrusted.read(path, str(path), untrusted.MODEL_BYTES)
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map

    def run(images: Images) -> Float32[np.ndarray, "n k"]:
        outputs: np.ndarray = session.run(None, {"images": images})[0]
        return outputs

    return Loaded((run,), json.loads(about[ABOUT]), _from_text(about[CHECK_TEXT]))


def _write_folder(path: Path, exported: Exported) -> None:
    about = exported.about
    path.mkdir()
    with (path / MODEL).open("wb") as file:
        torch.export.save(exported.program(), file)
    (path / WEIGHTS).write_bytes(tensors_bytes(exported.student.student.state_dict()))
    (path / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
    (path / CHECK).write_bytes(exported.check.to_bytes())
    facts = {name: about[name] for name in ("trial_id", "run", "input", "output", "network")}
    files = {"model": MODEL, "about": ABOUT, "check": CHECK, "weights": WEIGHTS}
    shape = ", ".join(map(str, (1, *exported.check.images.shape[1:])))
    (path / "README.txt").write_text(README.format(**facts, **files, shape=shape), encoding="utf-8")


def _load_folder(path: Path) -> Loaded:
    """Load a folder; the second of its runs is the program with the weights of the file beside it."""
    about = json.loads(untrusted.read(path / ABOUT, str(path / ABOUT), untrusted.IMAGE_BYTES))
    check = CheckBatch.from_bytes(untrusted.read(path / CHECK, str(path / CHECK), untrusted.IMAGE_BYTES))
    program, _ = _read_program(path / MODEL)
    module = program.module()
    weights = read_tensors(
        untrusted.read(path / WEIGHTS, str(path / WEIGHTS), untrusted.MODEL_BYTES), str(path / WEIGHTS)
    )
    inside = {f"student.network.{name}": value for name, value in weights.items()}
    inside |= {name: value for name, value in module.named_buffers() if name in PREPROCESSING}

    def refilled(images: Tensor) -> Tensor:
        outputs: Tensor = functional_call(module, inside, (images,), strict=True)
        return outputs

    return Loaded((_runs(module), _runs(refilled)), about, check)


def _read_program(path: Path) -> tuple[torch.export.ExportedProgram, dict[str, Any]]:
    extra: dict[str, Any] = {ABOUT: "", CHECK_TEXT: ""}  # torch fills no empty dict
    with untrusted.open_file(path, str(path), untrusted.MODEL_BYTES) as file:
        untrusted.check_zip(file, str(path), untrusted.MODEL_BYTES)
        file.seek(0)
        with _quiet():
            return torch.export.load(file, extra_files=extra), extra


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging the traceback of a file that it cannot read: the user gets one line."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _runs(module: Callable[[Tensor], Tensor]) -> Run:
    def run(images: Images) -> Float32[np.ndarray, "n k"]:
        with torch.no_grad():
            outputs: np.ndarray = module(torch.from_numpy(images)).numpy()
        return outputs

    return run


def _from_text(text: str) -> CheckBatch:
    return CheckBatch.from_bytes(base64.b64decode(text))


FORMATS: dict[str, Format] = {
    "pt2": Format(".pt2", _write_pt2, _load_pt2),
    "onnx": Format(".onnx", _write_onnx, _load_onnx, needs=("onnx", "onnxscript", "onnxruntime")),
    "folder": Format("", _write_folder, _load_folder),
}
"""By the name that `--format` takes."""
