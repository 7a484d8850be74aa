"""At which contrast to show images in training, at one budget of epochs.

    python benchmarks/accuracy/contrast.py DATA.npz [--seeds 3] [--only ROW ...]
    python benchmarks/accuracy/contrast.py --table

Rows name the range of `Augmenter(contrast=...)`. In one of them the images to score are stretched
instead. All else is as the defaults have it. Runs go to `results/contrast.jsonl`; those that are
there are not repeated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from protocol import Split, run_segmenter, run_table

from skmars.augmentation import choose_augmenter

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "0.7 to 1.3": {"contrast": (0.7, 1.3)},
    "0.7 to 1.3, 1.3 in prediction": {"contrast": (0.7, 1.3), "stretch": 1.3},
    "1 to 1": {"contrast": (1.0, 1.0)},
    "0.55 to 1": {"contrast": (0.55, 1.0)},
}


def run(split: Split, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train at a row's contrasts, and score images at one."""
    params = dict(params)
    stretch, contrast = params.pop("stretch", 1.0), params.pop("contrast")
    augmenter = choose_augmenter("auto").set_params(contrast=contrast)
    if stretch != 1:
        images = split.X_scored.astype(np.float32)
        mean = images.mean(axis=(1, 2), keepdims=True)
        split = split._replace(X_scored=mean + stretch * (images - mean))
    return run_segmenter(split, {**params, "augmentation": augmenter}, seed)


if __name__ == "__main__":
    run_table(
        "contrast",
        CONFIGURATIONS,
        settings={"dropout": 0.1, "n_threads": 1, "precision": "bfloat16"},
        baseline="0.7 to 1.3",
        epochs=40,
        run=run,
    )
