"""Images read from files: Parquet in the layout of the Hugging Face hub, folders of images, NumPy archives."""

import io
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from degan_search.data.images import Images, ImageSet, Labels
from degan_search.errors import UserError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
LABEL_COLUMNS = ("fine_label", "label")
USER_SIZE = 32  # a user's own images may have any size; they are all brought to this one, in RGB


@contextmanager
def reading(what: object, kind: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into a UserError: libraries raise many kinds for files that are broken."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} cannot be read as {kind}: {error}") from error


def plain(name: str) -> str:
    """A class name as this project writes it: "T-shirt/top" and "T - shirt / top" are both t_shirt_top."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def decode(sources: Iterable[tuple[str, Path | IO[bytes]]], count: int, fit: bool) -> Images:
    """`count` image files, each with the name for an error, as one array [count, C, H, W].

    With `fit` each is cropped about its middle and scaled to 32x32 RGB; without, all must be like the first.

    Raises:
        UserError: an image cannot be read, is huge (Pillow's limit), or has another size than the first.
    """
    images = np.empty((0, 0, 0, 0), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for i, (name, source) in enumerate(sources):
            with reading(name, "an image"), Image.open(source) as opened:
                image = opened.convert("L" if opened.mode in ("1", "L") and not fit else "RGB")
                if fit:
                    image = ImageOps.fit(image, (USER_SIZE, USER_SIZE), Image.Resampling.BILINEAR)
                pixels = np.asarray(image)
            pixels = np.atleast_3d(pixels).transpose(2, 0, 1)
            if i == 0:
                images = np.empty((count, *pixels.shape), np.uint8)
            if pixels.shape != images.shape[1:]:
                raise UserError(f"{name} has shape {pixels.shape}; the images before it {images.shape[1:]}")
            images[i] = pixels
    return images


def _parquet_columns(path: Path) -> tuple[pa.Schema, str, str | None]:
    """The schema, the name of the image column, and that of the label column if there is one."""
    with reading(path, "Parquet"):
        schema = pq.read_schema(path)
    found = f"{path} has the columns {', '.join(f'{field.name}: {field.type}' for field in schema)}"
    if not schema.names or not pa.types.is_struct(schema.types[0]) or schema.types[0].get_field_index("bytes") < 0:
        raise UserError(f"{found}; expected the first to be struct<bytes: binary, path: string>")
    label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if label and not pa.types.is_integer(schema.field(label).type):
        raise UserError(f"{found}; expected integers in {label}")
    return schema, schema.names[0], label


def _class_names(path: Path, schema: pa.Schema, label: str, labels: Labels, known: tuple[str, ...]) -> tuple[str, ...]:
    """The class names in the file's metadata, checked against those known; else "0", "1", ... ."""
    features = json.loads((schema.metadata or {}).get(b"huggingface", "{}")).get("info", {}).get("features", {})
    numbers = range(min(int(labels.max(initial=-1)) + 1, len(labels)))
    names = tuple(features.get(label, {}).get("names") or known or map(str, numbers))
    if known and tuple(map(plain, names)) != known:
        raise UserError(f"{path} has the classes {', '.join(names)}; expected {', '.join(known)}")
    if not np.isin(labels, np.arange(len(names))).all():
        raise UserError(f"column {label} of {path} has labels outside 0..{len(names) - 1}, the number of its classes")
    return known or names


def parquet_rows(path: Path) -> int:
    """The number of images in the file, from its footer; UserError if it is no such file."""
    _parquet_columns(path)
    return int(pq.read_metadata(path).num_rows)


def read_parquet(path: Path, known: tuple[str, ...] = (), classes: Sequence[str] | None = None) -> ImageSet:
    """Images and labels of one Parquet file; with `classes`, only the rows of these are decoded.

    With the class names `known` the file must be labelled with these, and its images keep their size;
    without, it is a user's own: 32x32 RGB, named by the metadata key `huggingface`, or "0", "1", ....

    Raises:
        UserError: not Parquet, other columns, labels or class names than expected, or a broken image.
    """
    schema, image_column, label_column = _parquet_columns(path)
    if known and label_column is None:
        raise UserError(f"{path} has the columns {', '.join(schema.names)}; expected label or fine_label")
    labels: Labels | None = None
    names: tuple[str, ...] = ()
    with reading(path, "Parquet"):
        table = pq.read_table(path, columns=[image_column, *([label_column] if label_column else [])])
        rows = np.arange(table.num_rows)
        if label_column:
            labels = np.asarray(table[label_column].fill_null(-1), dtype=np.int64)
            names = _class_names(path, schema, label_column, labels, known)
            if classes is not None:
                rows = np.flatnonzero(np.isin(labels, [i for i, name in enumerate(names) if name in classes]))
                labels = labels[rows]
    blobs = pc.struct_field(table[image_column], "bytes").take(pa.array(rows)).to_pylist()
    named = (
        (f"the image in row {row} of {path}", io.BytesIO(blob or b"")) for row, blob in zip(rows, blobs, strict=True)
    )
    return ImageSet(str(path), decode(named, len(blobs), fit=not known), labels, names)


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder in sorted order: its own, or those of its subfolders (classes).

    Raises:
        UserError: no folder, no images, or a link that leads outside.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected images, or one subfolder of images for each class")
    inner = [place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")]
    loose, nested = (
        sorted(path for place in places for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
        for places in ([folder], inner)
    )
    if bool(loose) == bool(nested):
        found = "images both of its own and in subfolders" if loose else f"no images ({', '.join(sorted(SUFFIXES))})"
        raise UserError(f"{folder} has {found}; expected images, or one subfolder of images for each class")
    files = loose or nested
    for path in files:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path} is a link to {path.resolve()}, outside {folder}; copy the image instead")
    return files


def read_folder(folder: Path) -> ImageSet:
    """A user's folder as 32x32 RGB, labelled by subfolder in sorted order, or unlabelled if it has none.

    Raises:
        UserError: as `image_files`, or a broken image.
    """
    files = image_files(folder)
    images = decode(((str(path), path) for path in files), len(files), fit=True)
    if files[0].parent == folder:
        return ImageSet(str(folder), images, None, ())
    classes, labels = np.unique([path.parent.name for path in files], return_inverse=True)
    return ImageSet(str(folder), images, labels.astype(np.int64), tuple(classes.tolist()))


def read_npz(path: Path) -> ImageSet:
    """A NumPy archive: `images`, uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3; `labels` [N] if any.

    Raises:
        UserError: no such archive, or arrays of other names, kinds or shapes. Pickled objects are refused.
    """
    with reading(path, "a NumPy archive (.npz) of plain arrays"), np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in ("images", "labels") if key in archive}
        found = ", ".join(archive)
    if "images" not in arrays:
        raise UserError(f"{path} has the arrays {found}; expected images, and labels if there are any")
    images, labels = arrays["images"], arrays.get("labels")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in (1, 3):
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size:
        raise UserError(
            f"images of {path} is {arrays['images'].dtype} {list(arrays['images'].shape)}; "
            "expected uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels"
        )
    if labels is None:
        return ImageSet(str(path), images, None, ())
    integers = labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer)
    if not integers or not 0 <= labels.min() <= labels.max() < len(labels):
        raise UserError(
            f"labels of {path} is {labels.dtype} {list(labels.shape)}; expected class numbers 0, 1, ..., "
            f"one for each of the {len(images)} images"
        )
    return ImageSet(str(path), images, labels.astype(np.int64), tuple(map(str, range(int(labels.max()) + 1))))
