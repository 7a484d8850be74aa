"""What `predict` reads and writes: images, and their masks in a folder or in one file."""

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skmars._files import check_writable, replacing
from skmars.cli.files import check_output

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "check_can_hold",
    "check_not_replaced",
    "kind_of_output",
    "load_images",
    "write_file",
    "write_folder",
]

# Of the images in memory, where each mask gets a file of its own.
PIXELS_AT_ONCE = 10**8

# Labels that a kind of output can hold.
HIGHEST_LABEL = {"folder": 2**16 - 1, ".csv": 2**8 - 1}


def kind_of_output(output: Path, data: Path, model: str) -> str:
    """Whether masks are written to a "folder", or to one file of ".csv" or ".npz"."""
    suffix = output.suffix.lower()
    if output.is_dir() or not suffix:
        _check_folder(output, data)
        return "folder"
    if suffix not in {".csv", ".npz"}:
        raise ValueError(f"--output must end in .csv or .npz, or be a folder; got {output}")
    check_output("--output", str(output), str(data), model)
    return suffix


def _check_folder(output: Path, data: Path) -> None:
    if output.exists():
        if not output.is_dir():
            raise ValueError(f"--output must be a folder, or end in .csv or .npz; got {output}")
        if output.samefile(data):
            raise ValueError(f"--output must be another folder than that of the images: {data}")
    # A folder that is missing is made in this one, when there is a mask to write.
    check_writable(next(folder for folder in (output, *output.parents) if folder.exists()))


def load_images(
    path: Path, *, whole: bool, done_in: Path | None = None
) -> tuple[list[str], Iterator[Any], str]:
    """Names of the images to predict, the images as a whole or in parts, and what they are.

    Those whose masks are in the folder `done_in` are left out.
    """
    from skmars.datasets import load_an2dl

    if path.is_dir():
        return _load_folder(path, whole=whole, done_in=done_in)
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an npz file; give one, or a folder of images")
    data: Any = load_an2dl(path)
    images, what = data.images, "training images"
    if data.test_images is not None:
        images, what = data.test_images, "test images"
    if len(images) == 0:
        raise ValueError(f"{path} has no {what}")
    digits = len(str(len(images) - 1))
    rows = {f"{row:0{digits}}": row for row in range(len(images))}
    names = _not_done(rows, done_in)
    parts = iter([images]) if whole else _in_parts(images[rows[name]] for name in names)
    return names, parts, f"{len(names)} {what}"


def _load_folder(
    folder: Path, *, whole: bool, done_in: Path | None
) -> tuple[list[str], Iterator[Any], str]:
    from skmars.datasets import load_image_folder
    from skmars.datasets._folder import list_image_files, read_images

    files = list_image_files(folder)
    names = _not_done(files, done_in)
    parts: Iterator[Any]
    if whole:
        data: Any = load_image_folder(folder)
        if isinstance(data.images, list):
            raise ValueError("images of different sizes need a folder as --output")
        parts = iter([data.images])
    else:
        parts = _in_parts(read_images(files, set(names)))
    return names, parts, f"{len(names)} images"


def _not_done(names: Iterable[str], done_in: Path | None) -> list[str]:
    """Names without a mask in a folder; all of them if there is none."""
    if done_in is None:
        return list(names)
    return [name for name in names if not _mask_path(done_in, name).exists()]


def _in_parts(images: Iterable["np.ndarray"]) -> Iterator[list["np.ndarray"]]:
    part: list[np.ndarray] = []
    n_pixels = 0
    for image in images:
        part.append(image)
        n_pixels += image.shape[0] * image.shape[1]
        if n_pixels >= PIXELS_AT_ONCE:
            yield part
            part, n_pixels = [], 0
    if part:
        yield part


def check_not_replaced(folder: Path, names: Sequence[str]) -> None:
    """Refuse to write masks over others, which may be those that somebody has drawn."""
    for name in names:
        path = _mask_path(folder, name)
        if path.exists():
            raise ValueError(
                f"{path} exists already: give another folder as --output, --overwrite to replace "
                "masks, or --resume to keep them and predict the other images"
            )


def _mask_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.png"


def check_can_hold(kind: str, labels: "np.ndarray") -> None:
    """Refuse labels of a model that a kind of output cannot hold."""
    low, high = labels.min(), labels.max()
    if kind in HIGHEST_LABEL and not 0 <= low <= high <= HIGHEST_LABEL[kind]:
        files = "PNG" if kind == "folder" else "CSV"
        raise ValueError(
            f"{files} files hold labels from 0 to {HIGHEST_LABEL[kind]}, and the model has {low} "
            f"to {high}: give an --output that ends in .npz"
        )


def write_folder(
    masks: Iterable["np.ndarray"], names: Sequence[str], folder: Path, labels: "np.ndarray"
) -> None:
    """Write each mask as a picture of its labels, as soon as it is there."""
    import numpy as np
    from PIL import Image

    dtype = np.uint8 if labels.max() <= np.iinfo(np.uint8).max else np.uint16
    for mask, name in zip(masks, names, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(_mask_path(folder, name)) as file:
            Image.fromarray(mask.astype(dtype)).save(file, format="png")


def write_file(masks: "np.ndarray", path: Path) -> None:
    """Write all masks as a submission or an archive, as the name of the file says."""
    import numpy as np

    from skmars.datasets import save_submission

    if path.suffix.lower() == ".csv":
        save_submission(masks, path)
    else:
        with replacing(path) as file:
            np.savez_compressed(file, masks=masks)
