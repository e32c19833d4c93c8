"""Writes labelled images, chunk by chunk, to files that this package reads; a file is complete or not there."""

import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32
from PIL import Image

from degan_search.data.images import Images, Labels
from degan_search.system.errors import UserError, close_matches

Add = Callable[[Images, Labels, Float32[np.ndarray, "n k"]], None]
"""Takes the next images, their labels, and each one's probability of every class."""

ROW_GROUP = 1000
ABOUT = "about.json"
LONGEST = 80
"""Characters of a class name that a folder's name keeps."""


@contextmanager
def writing(out: Path, kind: str, classes: tuple[str, ...], about: Mapping[str, Any]) -> Iterator[Add]:
    """Give the function that adds images to `out`, which appears when the block ends without an error.

    Args:
        out: a new file or, for `folders`, a new folder.
        kind: a key of FORMATS.
        classes: class names, in the order of the labels.
        about: where the images come from, kept with them as JSON.

    Raises:
        UserError: an unknown kind, or `out` is already there.
        OSError: the disk refused; nothing is visible then.
    """
    check(out, kind)
    with unfinished_path(out) as unfinished, FORMATS[kind](unfinished, classes, json.dumps(about, indent=1)) as add:
        yield add


@contextmanager
def unfinished_path(out: Path) -> Iterator[Path]:
    """Give a hidden place beside `out` for a new file or folder, which is renamed to `out` when the block ends well.

    Folders above `out` are made.

    Raises:
        UserError: `out` is already there.
    """
    check_new(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    hidden = Path(tempfile.mkdtemp(prefix=".tmp-", dir=out.parent))
    try:
        yield hidden / out.name
        check_new(out)  # it may have come meanwhile
        (hidden / out.name).rename(out)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def check(out: Path, kind: str) -> None:
    """Refuse, before anything is computed, what `writing` would refuse.

    Raises:
        UserError: an unknown kind, or `out` is already there.
    """
    if kind not in FORMATS:
        raise UserError(f"no format {kind!r}; {close_matches(kind, FORMATS)}")
    check_new(out)


def check_new(out: Path) -> None:
    """Raise UserError if a file, folder or link is already at `out`."""
    if os.path.lexists(out):
        raise UserError(f"{out} is already there; choose another name, or move it away")


def folder_names(classes: tuple[str, ...]) -> list[str]:
    """Return a safe folder name for each class; sorted by name, as readers of folders do, they keep their order.

    A name keeps its letters, digits and "-"; all else becomes "_". Where the names would then not ascend or not
    differ (in small letters, as some disks see them), each begins with its class number: 0_t-shirt, 1_trouser.
    """
    cut = (re.sub(r"[^\w-]+", "_", name).strip("_")[:LONGEST] for name in classes)
    safe = [name.encode()[: 3 * LONGEST].decode(errors="ignore") for name in cut]  # disks take 255 bytes
    if all(safe) and safe == sorted(safe) and len({name.lower() for name in safe}) == len(safe):
        return safe
    width = len(str(len(classes) - 1))
    return [f"{label:0{width}}_{name}" for label, name in enumerate(safe)]


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()


@contextmanager
def _folders(path: Path, classes: tuple[str, ...], about: str) -> Iterator[Add]:
    """A folder of PNG files for each class, also for one without images: readers number the labels by folder."""
    places = [path / name for name in folder_names(classes)]
    for place in places:
        place.mkdir(parents=True)
    (path / ABOUT).write_text(about, encoding="utf-8")
    done = 0

    def add(images: Images, labels: Labels, soft: np.ndarray) -> None:
        nonlocal done
        for image, label in zip(images, labels, strict=True):
            (places[label] / f"{done:08d}.png").write_bytes(_png(image))
            done += 1

    yield add


@contextmanager
def _parquet(path: Path, classes: tuple[str, ...], about: str) -> Iterator[Add]:
    """Parquet in the layout of the Hugging Face hub: PNG bytes, and labels whose names are in the metadata."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "about": about}
    schema = pa.schema([("image", kind), ("label", pa.int64())], metadata)
    rows: list[dict[str, Any]] = []
    done = 0
    with pq.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema))
            rows.clear()

        def add(images: Images, labels: Labels, soft: np.ndarray) -> None:
            nonlocal done
            for image, label in zip(images, labels, strict=True):
                rows.append({"image": {"bytes": _png(image), "path": f"{done:08d}.png"}, "label": int(label)})
                done += 1
                if len(rows) == ROW_GROUP:
                    flush()

        yield add
        if rows:
            flush()


@contextmanager
def _npz(path: Path, classes: tuple[str, ...], about: str) -> Iterator[Add]:
    """A NumPy archive: images uint8 [N, C, H, W], labels int64 [N], soft float32 [N, K], classes [K], about.

    The pixels wait in a temporary file: an array's length stands before its values, and is known last.
    """
    labels_, soft_ = [np.empty(0, np.int64)], [np.empty((0, len(classes)), np.float32)]
    shape: tuple[int, ...] = (0, 0, 0)
    with tempfile.TemporaryFile(dir=path.parent) as pixels:

        def add(images: Images, labels: Labels, soft: np.ndarray) -> None:
            nonlocal shape
            shape = images.shape[1:]
            pixels.write(images.tobytes())
            labels_.append(labels)
            soft_.append(soft)

        yield add
        labels, soft = np.concatenate(labels_), np.concatenate(soft_)
        small: dict[str, np.ndarray] = {
            "labels": labels,
            "soft": soft,
            "classes": np.array(classes),
            "about": np.array(about),
        }
        pixels.seek(0)
        with zipfile.ZipFile(path, "w") as archive:
            # ZipInfo without a date: the same images give the same bytes.
            with archive.open(zipfile.ZipInfo("images.npy"), "w", force_zip64=True) as entry:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *shape)}
                np.lib.format.write_array_header_2_0(entry, header)
                shutil.copyfileobj(pixels, entry)
            for name, array in small.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)


FORMATS: dict[str, Callable[[Path, tuple[str, ...], str], AbstractContextManager[Add]]] = {
    "folders": _folders,
    "parquet": _parquet,
    "npz": _npz,
}
