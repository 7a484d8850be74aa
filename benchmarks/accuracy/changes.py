"""One change of the defaults at a time, at one budget of seconds or epochs.

    python benchmarks/accuracy/changes.py DATA.npz [--seconds 300 | --epochs 40] [--seeds 3]
        [--only ROW ...] [--machine NAME]
    python benchmarks/accuracy/changes.py --table [--seconds 300 | --epochs 40] [--machine NAME]

What the student report varied in its net, as in `report.py` but with the defaults around it,
and what published work found to matter most. All rows have a dropout of 0.1, but for those that
name another. Where the background is a class, pixels are labelled with the most probable of the
other classes, since those alone are scored.
Runs go to `results/changes_<seconds>[_test][_<machine>].jsonl`, or where epochs are the budget,
whatever the machine, to `results/changes_<epochs>_epochs[_test].jsonl`; those that are there are
not repeated.
"""

from typing import Any

from protocol import run_table

from skmars.augmentation import choose_augmenter

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "dropout 0.1": {},
    "background a class": {"ignore_label": None},
    "rarest class pasted": {
        "augmentation": choose_augmenter("auto").set_params(paste_rare_class=0.5)
    },
    "inverse frequency": {"class_weight": "balanced"},
    "4 levels": {"depth": 4},
    "plain blocks": {"block": "plain"},
    "skips added": {"skip": "add"},
    "skips fused": {"skip": "fusion"},
    "no dropout": {"dropout": 0.0},
    "skips added, no dropout": {"skip": "add", "dropout": 0.0},
    "dropout 0.5": {"dropout": 0.5},
    "no attention": {"attention": False},
    "no ASPP": {"aspp": False},
    "2 levels": {"depth": 2},
}

if __name__ == "__main__":
    run_table("changes", CONFIGURATIONS, settings={"dropout": 0.1}, baseline="dropout 0.1")
