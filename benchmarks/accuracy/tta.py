"""What other views of an image are worth in prediction, most of them by one net a seed.

    python benchmarks/accuracy/tta.py DATA.npz [--seeds 3] [--only ROW ...]
    python benchmarks/accuracy/tta.py --table

The training is that of "40 epochs" of `duration.py`, in the last two rows with flips. The
calibration error is the expected one of the mean probabilities. Runs go to `results/tta.jsonl`;
those that are there are not repeated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from duration import MANY_EPOCHS, SETTINGS
from protocol import BACKGROUND, LABELS, Split, line_of_record, run_table

from skmars import MarsSegmenter
from skmars.augmentation import choose_augmenter
from skmars.metrics import expected_calibration_error

# Axes of (n, H, W) that are turned over.
FLIPS: list[tuple[int, ...]] = [(), (2,), (1,), (1, 2)]
WINDOW = (48, 96)
# What augmentation="auto" stands for, and horizontal flips.
FLIPPED = choose_augmenter("auto").set_params(horizontal_flip=True)
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "whole image": {},
    "... and its mirror image (tta=True)": {"tta": True},
    "... and all of its flips": {"flips": FLIPS},
    "four windows": {"window": WINDOW},
    "... and their mirror images": {"window": WINDOW, "flips": FLIPS[:2]},
    "... and all of their flips": {"window": WINDOW, "flips": FLIPS},
    "trained with flips, whole image": {"augmentation": FLIPPED},
    "trained with flips, and its mirror image": {"augmentation": FLIPPED, "tta": True},
}
# A net predicts for all rows of its seed that are trained alike.
trained: dict[tuple[int, bool], MarsSegmenter] = {}


def run(split: Split, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Predict as a row says, and score labels and probabilities."""
    params = dict(params)
    flips, window = params.pop("flips", FLIPS[:1]), params.pop("window", None)
    tta = params.pop("tta")
    net = seed, "augmentation" in params
    if net not in trained:
        segmenter = MarsSegmenter(ignore_label=BACKGROUND, random_state=seed, **params)
        trained[net] = segmenter.fit(split.X, split.y, groups=split.sols)
    segmenter = trained[net].set_params(tta=tta)
    views = []
    for axes in flips:
        view = in_windows(segmenter, np.flip(split.X_scored, axes), window)
        # Behind the classes.
        views.append(np.flip(view, [axis + 1 for axis in axes]))
    probabilities = np.mean(views, axis=0)
    predicted = np.array(LABELS)[probabilities.argmax(axis=1)]
    error = expected_calibration_error(
        split.y_scored, probabilities, labels=LABELS, ignore_label=BACKGROUND
    )
    seconds = sum(row["seconds"] for row in segmenter.history_)
    line = line_of_record(segmenter, split, seconds, predicted)
    return {**line, "scores": {"calibration error": error}}


def in_windows(
    segmenter: MarsSegmenter, X: np.ndarray, window: tuple[int, int] | None
) -> np.ndarray:
    """Mean probabilities over windows at the four corners, or those of whole images."""
    if window is None:
        return segmenter.predict_proba(X)
    n, height, width = X.shape
    total, n_views = np.zeros((n, len(LABELS), height, width)), np.zeros((height, width))
    for top in (0, height - window[0]):
        for left in (0, width - window[1]):
            part = np.s_[top : top + window[0], left : left + window[1]]
            total[:, :, *part] += segmenter.predict_proba(X[:, *part])
            n_views[part] += 1
    return total / n_views


if __name__ == "__main__":
    run_table(
        "tta",
        CONFIGURATIONS,
        settings=SETTINGS,
        baseline="whole image",
        epochs=MANY_EPOCHS,
        run=run,
    )
