"""What the commands read and write: data sets, folders of images, masks, lists of outliers."""

import argparse
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skmars._files import check_writable, replacing

if TYPE_CHECKING:
    import numpy as np
    from sklearn.utils import Bunch

__all__ = [
    "check_not_replaced",
    "check_output",
    "choose_writer",
    "load_images",
    "load_model",
    "load_pairs",
    "write_clean",
    "write_folder",
    "write_outliers",
]


def check_output(option: str, path: str, *inputs: str | None) -> Path:
    """The file to write to; an error before hours of training, not after them."""
    output = Path(path)
    if output.is_dir() or not output.parent.is_dir():
        raise ValueError(f"{option} must be a file in a folder that exists; got {path}")
    for name in inputs:
        if name is not None and output.exists() and output.samefile(name):
            raise ValueError(f"{option} must be another file than {name}")
    check_writable(output.parent)
    return output


def load_pairs(args: argparse.Namespace) -> "Bunch":
    """Images and masks of an npz file or of two folders."""
    from skmars.datasets import load_an2dl, load_image_folder

    folders = [folder for folder in (args.images, args.masks) if folder is not None]
    # Scores and reports have no use for groups.
    pattern = getattr(args, "group_pattern", None)
    if args.data is not None and not folders:
        if Path(args.data).is_dir():
            raise ValueError(f"{args.data} is a folder: give --images and --masks, or an npz file")
        if pattern is not None:
            raise ValueError("--group-pattern needs --images and --masks: a file has its groups")
        return load_an2dl(args.data)
    if args.data is None and len(folders) == 2:
        return load_image_folder(args.images, args.masks, group_pattern=pattern)
    raise ValueError("give either DATA, or both --images and --masks")


def load_images(path: Path) -> tuple[Any, list[str], str]:
    """Images to predict, their names, and what they are."""
    from skmars.datasets import load_an2dl, load_image_folder

    data: Any
    if path.is_dir():
        data = load_image_folder(path)
        names = [Path(name).stem for name in data.filenames]
        return data.images, names, f"{len(names)} images"
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an npz file; give one, or a folder of images")
    data = load_an2dl(path)
    images, what = data.images, "training images"
    if data.test_images is not None:
        images, what = data.test_images, "test images"
    digits = len(str(len(images) - 1))
    return images, [f"{i:0{digits}}" for i in range(len(images))], f"{len(images)} {what}"


def choose_writer(output: Path, data: Path, model: str):
    """The function of `(masks, names)` that writes what the name of the output says."""
    suffix = output.suffix.lower()
    if output.is_dir() or not suffix:
        if output.exists() and not output.is_dir():
            raise ValueError(f"--output must be a folder, or end in .csv or .npz; got {output}")
        if output.exists() and output.samefile(data):
            raise ValueError(f"--output must be another folder than that of the images: {data}")
        return lambda masks, names: write_folder(masks, names, output)
    if suffix not in {".csv", ".npz"}:
        raise ValueError(f"--output must end in .csv or .npz, or be a folder; got {output}")
    check_output("--output", str(output), str(data), model)
    return lambda masks, names: _write_file(masks, output)


def check_not_replaced(folder: Path, names: Sequence[str]) -> None:
    """Refuse to write masks over others, which may be those that somebody has drawn."""
    for path in _mask_paths(folder, names):
        if path.exists():
            raise ValueError(
                f"{path} exists already: give another folder as --output, or --overwrite to "
                "replace masks"
            )


def _mask_paths(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / f"{name}.png" for name in names]


def _write_file(masks: Any, path: Path) -> None:
    import numpy as np

    from skmars.datasets import save_submission

    if isinstance(masks, list):
        raise ValueError(f"images of different sizes need a folder as --output, not {path}")
    if path.suffix.lower() == ".csv":
        save_submission(masks, path)
    else:
        with replacing(path) as file:
            np.savez_compressed(file, masks=masks)


def write_folder(masks: Sequence["np.ndarray"], names: Sequence[str], folder: Path) -> None:
    """Write each mask as a picture of its labels."""
    import numpy as np
    from PIL import Image

    low, high = min(mask.min() for mask in masks), max(mask.max() for mask in masks)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ValueError(f"PNG files hold labels from 0 to 65535; got {low} to {high}")
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16
    for mask, path in zip(masks, _mask_paths(folder, names), strict=True):
        with replacing(path) as file:
            Image.fromarray(mask.astype(dtype)).save(file, format="png")


def write_outliers(remover: Any, path: Path) -> None:
    """Write a row for each image that was taken, with the reason."""
    import csv

    with replacing(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "score", "reason"])
        for row in remover.outlier_mask_.nonzero()[0]:
            writer.writerow([row, f"{remover.scores_[row]:.6g}", remover.reasons_[row]])


def write_clean(data: str, kept: "np.ndarray", path: Path) -> None:
    """Copy a data set, without the outliers in any array that has a value for each image."""
    import numpy as np

    with np.load(data, allow_pickle=False) as archive:
        arrays = dict(archive)
    n = len(arrays["training_set"])
    for name, array in arrays.items():
        # The test set and the names of labels can happen to be of the same length.
        is_other = name.startswith("test") or name == "target_names"
        if array.ndim and len(array) == n and not is_other:
            arrays[name] = array[kept]
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)


def load_model(path: str, params: Mapping[str, Any] | None = None) -> Any:
    """Read a segmenter or an ensemble, and set parameters of it or of all its members."""
    from skmars.ensemble import Ensemble
    from skmars.persistence import read_archive
    from skmars.segmenter import MarsSegmenter

    is_ensemble = "members" in read_archive(path)[0]
    model: Any = Ensemble.load(path) if is_ensemble else MarsSegmenter.load(path)
    if not params:
        return model
    for segmenter in model.estimators_ if is_ensemble else [model]:
        segmenter.set_params(**params)._validate_params()
        # A net stays on the device and in the precision that it was built for.
        segmenter._restore_net(segmenter.net_.module_.state_dict())
    if is_ensemble:
        # What a report tells of its members.
        model.estimator.set_params(**params)
    return model
