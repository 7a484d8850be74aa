"""What several commands read and write: data sets, models, lists of outliers."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skmars._files import check_writable, replacing

if TYPE_CHECKING:
    from sklearn.utils import Bunch

__all__ = ["check_output", "load_model", "load_pairs", "write_outliers"]


def check_output(option: str, path: str, *inputs: str | None) -> Path:
    """The file to write to; an error before hours of training, not after them."""
    output = Path(path)
    # A link stays one, and what it leads to is written.
    real = Path(os.path.realpath(path))
    if (real.exists() and not real.is_file()) or not real.parent.is_dir():
        raise ValueError(f"{option} must be a regular file in a folder that exists; got {path}")
    for name in inputs:
        if name is not None and output.exists() and output.samefile(name):
            raise ValueError(f"{option} must be another file than {name}")
    check_writable(real.parent)
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


def write_outliers(remover: Any, path: Path) -> None:
    """Write a row for each image that was taken, with the reason."""
    import csv

    with replacing(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "score", "reason"])
        for row in remover.outlier_mask_.nonzero()[0]:
            writer.writerow([row, f"{remover.scores_[row]:.6g}", remover.reasons_[row]])


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
    if is_ensemble:
        # What a report tells of its members.
        model.estimator.set_params(**params)
    return model
