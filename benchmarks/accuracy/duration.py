"""How long to train, and which weights to keep, on many images and on few.

    python benchmarks/accuracy/duration.py DATA.npz [--seeds 3] [--only ROW ...]
    python benchmarks/accuracy/duration.py --table

The first rows are of all images, the others of some 200, from a few sols. Rows of "the best epoch"
go back to the weights that have the best mean IoU on the tenth of the images that is held out.
Images are predicted whole, as in all tables that were made before `tta.py`.
Runs go to `results/duration.jsonl`; those that are there are not repeated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from protocol import Split, run_segmenter, run_table

MANY_EPOCHS = 40
FEW_IMAGES = 200
# No sol is more than this share of them.
SOL_SHARE = 1 / 3

SETTINGS = {"dropout": 0.1, "n_threads": 1, "precision": "bfloat16", "tta": False}
FEW = {"n_images": FEW_IMAGES}
CONFIGURATIONS = {
    "40 epochs": {},
    "40 epochs, the best epoch": {"early_stopping": True, "patience": MANY_EPOCHS},
    "40 epochs, all images, none held out": {"validation_fraction": None},
    "40 epochs, 32 base channels": {"base_channels": 32},
    "200 images, 40 epochs": FEW,
    "200 images, 40 epochs, the best, or 10 without a better one": {
        **FEW,
        "early_stopping": True,
        "patience": 10,
    },
    "200 images, auto": {**FEW, "max_epochs": "auto"},
}


def run(split: Split, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train what a row says on all images or some, and score it."""
    params = dict(params)
    if n_images := params.pop("n_images", None):
        rows = some_sols(split.sols, n_images, np.random.default_rng(seed))
        split = split._replace(X=split.X[rows], y=split.y[rows], sols=split.sols[rows])
    return run_segmenter(split, params, seed)


def some_sols(sols: np.ndarray, n_images: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of sols drawn at random, until there are at least as many images."""
    rows: list[int] = []
    for sol in rng.permutation(np.unique(sols)):
        of_sol = rng.permutation(np.flatnonzero(sols == sol))
        rows.extend(of_sol[: int(SOL_SHARE * n_images)])
        if len(rows) >= n_images:
            break
    return np.array(rows)


if __name__ == "__main__":
    run_table(
        "duration",
        CONFIGURATIONS,
        settings=SETTINGS,
        baseline="40 epochs",
        epochs=MANY_EPOCHS,
        run=run,
    )
