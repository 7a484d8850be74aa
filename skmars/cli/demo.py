"""The demonstration: train, score beside trivial baselines, and leave pictures.

It runs on generated terrain, or on a file in the layout of the AN2DL challenge.
"""

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skmars._files import check_writable
from skmars.datasets import load_an2dl, make_terrain
from skmars.datasets._an2dl import TARGET_NAMES
from skmars.inspection import (
    ConfusionDisplay,
    LearningCurveDisplay,
    MaskDisplay,
    class_names,
    iou_table,
)
from skmars.inspection._figures import require_matplotlib
from skmars.metrics import iou_per_class
from skmars.model_selection import class_counts, holdout_split
from skmars.segmenter import MarsSegmenter

__all__ = ["run_demo"]

# Hyperparameters of the segmenter, beside what depends on the data and on the caller.
SETTINGS: dict[str, Any] = {
    "verbose": 1,
}

# Seconds of training: with loading, scoring and drawing either takes about five minutes.
TIME_LIMIT_GENERATED = 240.0
TIME_LIMIT_FILE = 285.0

N_TRAIN, N_TEST = 1500, 200
TEST_FRACTION = 0.2
N_PICTURES = 8
N_LEVELS = 256


@dataclass(frozen=True)
class _Data:
    """Images and masks to train on and to test on."""

    source: str
    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    train_groups: np.ndarray | None
    test_groups: np.ndarray | None
    target_names: list[str] | None

    def labels(self) -> np.ndarray:
        """All labels, sorted."""
        return np.union1d(np.unique(self.y_train), np.unique(self.y_test))

    def ignore_label(self) -> int | None:
        """0, if it is AN2DL's background and two labels or more are left without it."""
        labels = self.labels()
        like_an2dl = labels[0] == 0 and self.target_names == TARGET_NAMES
        return 0 if like_an2dl and len(labels) > 2 else None


def run_demo(
    data: str | os.PathLike | None = None,
    output: str | os.PathLike = "demo",
    *,
    time_limit: float | None = None,
    random_state: int = 0,
) -> dict[str, Any]:
    """Train a segmenter, compare it with trivial baselines, and draw what it does.

    A labelled test set in the file is what is scored; without one, a fifth of the training images
    is held out for it, whole sols where the file tells them. Label 0 is left out of loss and
    score, as in the challenge, if it is one of three labels or more that have AN2DL's names: those
    in the file, or by default if no label is above 4. Otherwise every label counts. Outliers in
    the file are left in.

    The output folder gets `masks.png`, `learning_curves.png`, `confusion_matrix.png`,
    `scores.json` and the trained `model.skmars`.

    Parameters
    ----------
    data : path-like, default=None
        An npz file as `load_an2dl` reads it. By default 1,500 training and 200 test images are
        generated.
    output : path-like, default="demo"
        The folder to write to; it is made if it is not there.
    time_limit : float, default=None
        Seconds of training. By default 240 for generated terrain and 285 for a file.
    random_state : int, default=0
        Seed of generated terrain, split and training.

    Returns
    -------
    figures : dict
        What `scores.json` holds: `iou` and `mean_iou` of each method, and the facts of the run.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the file is not as described.
    """
    require_matplotlib("The demonstration")
    if time_limit is None:
        time_limit = TIME_LIMIT_GENERATED if data is None else TIME_LIMIT_FILE
    parts = _generate(random_state) if data is None else _read(data, random_state)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder)
    ignore_label = parts.ignore_label()
    _announce(parts, ignore_label, time_limit)

    segmenter = MarsSegmenter(
        **SETTINGS, ignore_label=ignore_label, time_limit=time_limit, random_state=random_state
    )
    start = time.perf_counter()
    segmenter.fit(parts.X_train, parts.y_train, groups=parts.train_groups)
    training_seconds = time.perf_counter() - start
    start = time.perf_counter()
    predicted = segmenter.predict(parts.X_test)
    images_per_second = len(parts.X_test) / (time.perf_counter() - start)

    labels = parts.labels()
    labels = labels[labels != ignore_label] if ignore_label is not None else labels
    figures = {
        "data": parts.source,
        "n_train": len(parts.X_train),
        "n_test": len(parts.X_test),
        "ignore_label": ignore_label,
        **_score(parts, predicted, labels, ignore_label),
        "training_seconds": round(training_seconds, 1),
        "prediction_images_per_second": round(images_per_second, 1),
        "epochs": segmenter.n_iter_,
        "n_parameters": segmenter.n_parameters_,
        "precision": segmenter.precision_,
        "settings": {**SETTINGS, "time_limit": time_limit, "random_state": random_state},
    }
    segmenter.save(folder / "model.skmars")
    (folder / "scores.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    _draw(parts, predicted, labels, segmenter, folder)
    print(
        f"\nTrained for {training_seconds:.0f} s, {segmenter.n_iter_} epochs, "
        f"{segmenter.n_parameters_:,} parameters; predicts {images_per_second:.0f} images a "
        f"second.\nPictures, scores and the model are in {folder}{os.sep}"
    )
    return figures


def _generate(random_state: int) -> _Data:
    print(f"Generating {N_TRAIN + N_TEST} images of Martian terrain ...", flush=True)
    X, y = make_terrain(N_TRAIN + N_TEST, random_state=random_state)
    names = list(TARGET_NAMES)
    train, test = slice(None, N_TRAIN), slice(N_TRAIN, None)
    return _Data("generated terrain", X[train], y[train], X[test], y[test], None, None, names)


def _read(path: str | os.PathLike, random_state: int) -> _Data:
    bunch: Any = load_an2dl(path)
    source = os.fspath(path)
    if bunch.test_target is not None:
        return _Data(
            source,
            bunch.images,
            bunch.target,
            bunch.test_images,
            bunch.test_target,
            _enough_groups(bunch.groups, 2, "file"),
            bunch.test_groups,
            bunch.target_names,
        )
    groups = _enough_groups(bunch.groups, 3, "file")
    counts = class_counts(bunch.target, np.unique(bunch.target))
    rng = np.random.default_rng(random_state)
    kept, held_out = holdout_split(counts, TEST_FRACTION, groups=groups, rng=rng)
    return _Data(
        source,
        bunch.images[kept],
        bunch.target[kept],
        bunch.images[held_out],
        bunch.target[held_out],
        None if groups is None else _enough_groups(groups[kept], 2, "training set"),
        None if groups is None else groups[held_out],
        bunch.target_names,
    )


def _enough_groups(groups: np.ndarray | None, needed: int, whose: str) -> np.ndarray | None:
    """Groups, or None where they are too few for every part to have one."""
    if groups is None or len(np.unique(groups)) >= needed:
        return groups
    print(
        f"The {whose} has fewer than {needed} sols: images of one sol may be on both sides of its "
        "split."
    )
    return None


def _announce(parts: _Data, ignore_label: int | None, time_limit: float) -> None:
    ignored = (
        "All labels count." if ignore_label is None else "Label 0 does not count, as in AN2DL."
    )
    print(
        f"Data: {parts.source}, {len(parts.X_train)} training and {len(parts.X_test)} test images."
        f" {ignored}\nOutliers, if there are any, are left in."
        f"\nTraining for {time_limit:.0f} s ...",
        flush=True,
    )


def _score(
    parts: _Data, predicted: np.ndarray, labels: np.ndarray, ignore_label: int | None
) -> dict[str, Any]:
    """IoU of the segmenter and of the baselines on the test set, printed and as a dict."""
    predictions = {
        "segmenter": predicted,
        "grey value": _grey_value_baseline(parts, labels),
        "majority": _majority_baseline(parts, labels),
    }
    iou = {
        method: iou_per_class(parts.y_test, masks, labels=labels, ignore_label=ignore_label)
        for method, masks in predictions.items()
    }
    names = class_names(labels, parts.target_names)
    print(
        f"\nIoU on the {len(parts.X_test)} test images, beside two baselines that see no form: "
        f"the most\nfrequent class of each pixel's grey value, and the most frequent class.\n\n"
        f"{iou_table(iou, names)}"
    )
    return {
        "iou": {
            method: {name: _number(value) for name, value in zip(names, values, strict=True)}
            for method, values in iou.items()
        },
        "mean_iou": {method: _number(float(np.nanmean(values))) for method, values in iou.items()},
    }


def _number(value: float) -> float | None:
    # JSON has no NaN.
    return None if math.isnan(value) else round(float(value), 4)


def _majority_baseline(parts: _Data, labels: np.ndarray) -> np.ndarray:
    counts = class_counts(parts.y_train, labels).sum(axis=0)
    return np.full_like(parts.y_test, labels[counts.argmax()])


def _grey_value_baseline(parts: _Data, labels: np.ndarray) -> np.ndarray:
    """Label each pixel with the most frequent class of its grey value in the training set.

    Classes are not balanced. A grey value that the training set does not have gets the class of
    the nearest one that it has.
    """
    low, high = float(parts.X_train.min()), float(parts.X_train.max())

    def level(images: np.ndarray) -> np.ndarray:
        share = (np.asarray(images, dtype=np.float32) - low) / max(high - low, 1e-12)
        return np.clip(share * (N_LEVELS - 1), 0, N_LEVELS - 1).round().astype(np.uint8)

    levels = level(parts.X_train)
    counts = np.stack(
        [np.bincount(levels[parts.y_train == label], minlength=N_LEVELS) for label in labels]
    )
    seen = np.flatnonzero(counts.sum(axis=0))
    nearest = seen[np.abs(np.arange(N_LEVELS)[:, None] - seen).argmin(axis=1)]
    return labels[counts.argmax(axis=0)[nearest]][level(parts.X_test)]


def _draw(
    parts: _Data,
    predicted: np.ndarray,
    labels: np.ndarray,
    segmenter: MarsSegmenter,
    folder: Path,
) -> None:
    chosen = _varied_images(class_counts(parts.y_test, labels), parts.test_groups, N_PICTURES)
    all_labels = parts.labels()
    masks = MaskDisplay.from_predictions(
        parts.X_test[chosen],
        parts.y_test[chosen],
        predicted[chosen],
        labels=all_labels,
        target_names=class_names(all_labels, parts.target_names),
        ignore_label=segmenter.ignore_label,
        images_per_row=2,
    )
    _write(masks.figure_, folder / "masks.png")
    _write(LearningCurveDisplay.from_estimator(segmenter).figure_, folder / "learning_curves.png")

    confusion = ConfusionDisplay.from_predictions(
        parts.y_test,
        predicted,
        labels=labels,
        ignore_label=segmenter.ignore_label,
        target_names=class_names(labels, parts.target_names),
    )
    _write(confusion.figure_, folder / "confusion_matrix.png")


def _varied_images(counts: np.ndarray, groups: np.ndarray | None, n: int) -> np.ndarray:
    """Indices of images to show: together rich in every class, and of different groups.

    How well they were predicted plays no part.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    group_of = np.arange(len(counts)) if groups is None else groups
    shown = np.zeros(counts.shape[1])
    chosen: list[int] = []
    for _ in range(min(n, len(counts))):
        # The root makes a class worth the more, the less of it is shown already.
        gain = np.sqrt(shown + shares).sum(axis=1)
        times_shown = np.array([np.count_nonzero(group_of[chosen] == g) for g in group_of])
        gain[times_shown > times_shown.min()] -= counts.shape[1]
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        shown += shares[chosen[-1]]
    return np.sort(chosen)


def _write(figure, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=120)
    plt.close(figure)
