"""Every reader of somebody else's files, with whole files that `fuzz.py` breaks."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pickle
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image
from safetensors.torch import save

import search_spaces
from degan_search import ledger
from degan_search.data import folders, npz, parquet
from degan_search.ledger import pack, row_file
from degan_search.ledger.columns import config_columns, config_of
from degan_search.networks.table import build_classifier
from degan_search.search.space.schema import Space
from degan_search.settings import yaml_text
from degan_search.settings.resolve import parse
from degan_search.settings.trial import TeacherConfig, TrialConfig
from degan_search.stages.teacher_file import Teacher
from degan_search.system.errors import BrokenFileWarning, UserError
from degan_search.training import resumable

MARK = "code-ran"
"""The file that hostile code would make."""
Seed = tuple[bytes, Callable[[bytes], bytes]]
"""What is changed, and what makes a file of it: checksums that do not fit would end most readings at once."""


def whole(*contents: bytes) -> list[Seed]:
    return [(content, bytes) for content in contents]


class Bomb:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path(MARK).absolute(),)


@dataclass(frozen=True)
class Reader:
    """A reader, whole files to start from, and its share of all inputs."""

    name: str
    """Of the file, in a folder of its own."""
    read: Callable[[Path], object]
    seeds: Callable[[Path], list[Seed]]
    share: int
    text: bool = False


def picture(kind: str, mode: str = "RGB", size: tuple[int, int] = (13, 9), **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    stream = io.BytesIO()
    deep = mode == "I;16"
    image = Image.fromarray(pixels[:, :, 0] * np.uint16(257)) if deep else Image.fromarray(pixels, "RGBA").convert(mode)
    if kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6  # to be turned upright
    image.save(stream, kind, **options)
    return stream.getvalue()


def image_reader(kind: str, suffix: str, modes: tuple[str, ...], **options: object) -> Reader:
    def seeds(folder: Path) -> list[Seed]:
        several = {"save_all": True, "append_images": [Image.new("RGB", (13, 9))]}
        animated = [picture(kind, **several)] if kind in ("GIF", "PNG", "TIFF", "WEBP") else []
        pictures = [picture(kind, mode, **options) for mode in modes] + animated
        return whole(*pictures) + ([(content, checked_png) for content in pictures] if kind == "PNG" else [])

    return Reader(f"image.{suffix}", lambda path: folders.read_folder(path.parent), seeds, 8)


def checked_png(data: bytes) -> bytes:
    """Return a PNG with the checksums that its chunks should have."""
    made, at = bytearray(data), 8
    while at + 12 <= len(made):
        end = at + 8 + int.from_bytes(made[at : at + 4])
        made[end : end + 4] = zlib.crc32(made[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(made)


def archive(name: str, others: dict[str, bytes]) -> Callable[[bytes], bytes]:
    """Return what puts a part of this name first into a zip archive of the others."""

    def made(part: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as new:
            for member, content in {name: part, **others}.items():
                new.writestr(zipfile.ZipInfo(member), content)
        return stream.getvalue()

    return made


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        return {name: old.read(name) for name in old.namelist()}


def image_sets(folder: Path) -> list[Seed]:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": picture("PNG"), "path": "../../secret"} for _ in range(6)]
    about = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["a", "b"]}}}})}
    table = pa.table({"image": pa.array(rows, kind), "label": [0, 1] * 3}).replace_schema_metadata(about)
    made = []
    for options in ({"compression": "none"}, {"compression": "zstd", "row_group_size": 2}, {"use_dictionary": False}):
        stream = io.BytesIO()
        pq.write_table(table, stream, **options)
        made.append(stream.getvalue())
    stream = io.BytesIO()
    text, bare = pa.array(["a", "b"] * 3), pa.array([picture("PNG")] * 6, pa.large_binary())
    pq.write_table(pa.table({"label": text, "image": bare}), stream)
    return whole(*made, stream.getvalue())


def archives(folder: Path) -> list[Seed]:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), np.uint8)
    made = []
    for write in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        write(stream, images=images, labels=np.arange(4))
        made.append(stream.getvalue())
    stream = io.BytesIO()
    np.savez(stream, images=np.array([Bomb()]))
    made.append(stream.getvalue())
    stream = io.BytesIO()
    deep = {"train_images": images[:, 0].astype(np.uint16) * 257, "train_labels": np.arange(4)[:, None]}
    np.savez(stream, **deep, classes=np.array(["a", "b", "c", "d"]))
    made.append(stream.getvalue())
    parts = [
        (name, unpacked(content))
        for content in made
        for name in ("images.npy", "labels.npy", "train_images.npy", "train_labels.npy", "classes.npy")
        if name in unpacked(content)
    ]
    return whole(*made) + [(others.pop(name), archive(name, others)) for name, others in parts]


def row() -> dict[str, object]:
    curve = [{"budget": step, "score": 0.5, "seconds": 1.0} for step in (5, 9)]
    about = {"trial_id": "search-0000", "attempt": 1, "phase": "search", "state": "COMPLETE", "reports": curve}
    return about | {"reason": "none", "score": 0.5} | config_columns(TrialConfig())


def rows(folder: Path) -> list[Seed]:
    data = ledger.write_row(folder / "seed", row()).read_bytes()
    table = pq.read_table(io.BytesIO(data))
    parquet_part, copy = row_file.parquet_bytes(table), row_file.copy_of(table).removeprefix(row_file.COPY)
    return [*whole(data), (copy, lambda broken: row_file.seal(parquet_part, row_file.COPY + broken))]


def packs(folder: Path) -> list[Seed]:
    ledger.write_row(folder, row())
    with mock.patch.object(pack, "PACK_FROM", 1):
        ledger.load(folder)
    return whole((folder / "packed" / "ledger.parquet").read_bytes())


def read_run(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", BrokenFileWarning)
        try:
            ledger.load(path.parent.parent)
            ledger.curves(path.parent.parent)
        except BrokenFileWarning as left_out:
            raise UserError(str(left_out)) from None


def weights() -> dict[str, torch.Tensor]:
    return build_classifier("lenet", 10, 2).state_dict()


def saved(what: object, **options: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(what, stream, **options)
    return stream.getvalue()


def states(folder: Path) -> list[Seed]:
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    bomb, old = {"0.weight": Bomb()}, {"_use_new_zipfile_serialization": False}
    beside = {
        "args": argparse.Namespace(lr=0.1),
        "milestones": Counter([9]),
        "optimizer": {"state": {0: torch.ones(2)}},
    }
    checkpoint = saved({"state_dict": {f"module.{name}": value for name, value in weights().items()}, **beside})
    numpys = {"model": weights(), "best": np.float64(0.5), "losses": np.zeros(3)}
    archives = [saved(weights()), saved(numpys), saved(bomb), saved({"0.weight": bytearray(99)}), checkpoint]
    parts = [unpacked(content) for content in archives]
    name = "archive/data.pkl"
    pickles = [(others.pop(name), archive(name, others)) for others in parts]
    return whole(*archives, saved(bomb, **old), saved(numpys, **old), script.getvalue(), pickle.dumps(Bomb())) + pickles


def read_teacher(path: Path) -> None:
    config = TeacherConfig(dataset="digits", network="lenet", width=2, path=str(path))
    Teacher(config, path.read_bytes(), path.suffix, tuple("0123456789"), "", 0.0).model()


def trial_states(folder: Path) -> list[Seed]:
    state = {"step": 3, "gan": {"d": weights(), "rng": torch.Generator().get_state(), "best": [0.5, None]}}
    return whole(resumable.state_bytes(state)[len(resumable.MAGIC) + resumable.DIGEST :]) + states(folder)


def read_trial_state(path: Path) -> None:
    content = path.read_bytes()  # as somebody would sign it
    resumable.read_state(resumable.MAGIC + hashlib.sha256(content).digest() + content, str(path))


def space_files(folder: Path) -> list[Seed]:
    return whole(*(file.read_bytes() for file in sorted(Path(search_spaces.__file__).parent.glob("*.yaml"))))


def read_space(path: Path) -> None:
    space = parse(Space, yaml_text.read(path, path.name), "space")
    yaml.safe_dump(space.model_dump(mode="json", by_alias=True))


READERS = {
    "png": image_reader("PNG", "png", ("RGB", "RGBA", "L", "P", "1", "I;16")),
    "jpeg": image_reader("JPEG", "jpg", ("RGB", "L", "CMYK")),
    "gif": image_reader("GIF", "gif", ("P", "L")),
    "bmp": image_reader("BMP", "bmp", ("RGB", "P", "1", "RGBA")),
    "tiff": image_reader("TIFF", "tif", ("RGB", "L", "CMYK", "F", "I;16"), compression="tiff_lzw"),
    "webp": image_reader("WEBP", "webp", ("RGB", "RGBA")),
    "ppm": image_reader("PPM", "ppm", ("RGB", "L", "1", "I;16")),
    "parquet": Reader("set.parquet", parquet.read, image_sets, 12),
    "npz": Reader("set.npz", npz.read_npz, archives, 10),
    "yaml": Reader("space.yaml", read_space, space_files, 4, text=True),
    "configuration": Reader(
        "config.json",
        lambda path: config_of({"trial_id": "x", "config_json": path.read_text(errors="replace")}),
        lambda folder: whole(TrialConfig().model_dump_json().encode()),
        8,
        text=True,
    ),
    "ledger": Reader("ledger/search-0000-1.parquet", read_run, rows, 3),
    "pack": Reader("packed/ledger.parquet", read_run, packs, 1),
    "safetensors": Reader("own.safetensors", read_teacher, lambda folder: whole(save(weights())), 6),
    "pt": Reader("own.pt", read_teacher, states, 5),
    "trial state": Reader("state", read_trial_state, trial_states, 4),
}
