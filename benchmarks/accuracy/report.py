"""The experiments of the student report, each as one call, at one budget of seconds.

    python benchmarks/accuracy/report.py DATA.npz [--seconds 300] [--seeds 3] [--only ROW ...]
    python benchmarks/accuracy/report.py --table [--seconds 300]

Rows 1 to 5 are the report's Table 1, each with what the one before has. The control is a second
phase of the same length in which nothing is frozen. In the rows "split by images" the images to
score are drawn one by one, from scenes that are trained on as well; where that split is drawn anew
for the second phase, most of what is scored has been trained on. What the defaults do beyond the
report is off: patches, class weights, moving averages, changes of the light, windows and CutMix,
and several views of an image in prediction. The weights are those of the epoch that is best on the
images held out.
Runs go to `results/report_<seconds>.jsonl`; those that are there are not repeated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from protocol import Split, run_segmenter, run_table

# As much as the sols that the other rows hold out.
SCORED_SHARE = 0.2
SECOND_PHASE = {"learning_rate": 2e-4, "time_share": 0.2}

PLAIN = {
    "patch_size": 1,
    "class_weight": None,
    "augmentation": None,
    "ema_decay": None,
    "dropout": 0.1,
    "early_stopping": True,
    "tta": False,
}
BARE = {"depth": 3, "attention": False, "aspp": False}
FULL = {"depth": 3}
CONFIGURATIONS = {
    "2 blocks": {**BARE, "depth": 2},
    "3 blocks": BARE,
    "+ ASPP": {**BARE, "aspp": True},
    "+ attention": FULL,
    "+ fine tuning, encoder frozen": {**FULL, "freeze": "encoder"},
    "control: fine tuning, nothing frozen": {
        **FULL,
        "then": SECOND_PHASE,
    },
    "split by images": {**FULL, "by_images": True},
    "split by images, drawn anew for fine tuning": {
        **FULL,
        "by_images": True,
        "then": SECOND_PHASE,
    },
    "4 blocks": {"depth": 4},
    "weighted cross entropy": {"class_weight": "sqrt"},
    "focal": {"loss": "focal"},
    "Dice": {"loss": "dice"},
    "boundary": {"loss": "cross_entropy+boundary"},
    "focal + Dice": {"loss": "focal+dice"},
    "plateau": {"scheduler": "plateau"},
    "skips added": {"skip": "add"},
    "skips fused": {"skip": "fusion"},
    "plain blocks": {"block": "plain"},
    "no dropout": {"dropout": 0.0},
    "dropout 0.5": {"dropout": 0.5},
}


def run(split: Split, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train what a row says, and score it."""
    params = dict(params)
    if not params.pop("by_images", False):
        return run_segmenter(split, params, seed)
    rng = np.random.default_rng(seed)
    first, anew = by_images(split, rng), by_images(split, rng)
    return run_segmenter(first, params, seed, split_then=anew if "then" in params else None)


def by_images(split: Split, rng: np.random.Generator) -> Split:
    """Draw the images to score one by one, whatever their sols; validation does so, too."""
    X, y, sols = (np.concatenate(parts) for parts in zip(split[:3], split[3:], strict=True))
    scored = rng.permutation(len(X)) < SCORED_SHARE * len(X)
    groups = np.arange(len(X))
    return Split(X[~scored], y[~scored], groups[~scored], X[scored], y[scored], sols[scored])


if __name__ == "__main__":
    run_table("report", CONFIGURATIONS, settings=PLAIN, baseline="+ attention", run=run)
