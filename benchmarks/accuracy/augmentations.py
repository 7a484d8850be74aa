"""Augmentations alone and combined, at one budget of epochs.

    python benchmarks/accuracy/augmentations.py DATA.npz [--seeds 3] [--epochs 8] [--only NAME ...]
    python benchmarks/accuracy/augmentations.py --table

Runs go to `results/augmentations.jsonl`; those that are there are not repeated.
"""

import argparse
from pathlib import Path

from protocol import append_run, missing_runs, read_runs, run_once, table

from skmars import Augmenter

RECORD = Path(__file__).parent / "results" / "augmentations.jsonl"

INTENSITY = {"brightness": 0.3, "contrast": 0.3}
CROP = {"crop_scale": 0.6}
PASTE = {"paste_rare_class": 0.5}
OFF = {"horizontal_flip": False}
CONFIGURATIONS = {
    "none": None,
    "horizontal flip": {},
    "both flips": {"vertical_flip": True},
    "brightness and contrast": {**OFF, **INTENSITY},
    "crop": {**OFF, **CROP},
    "paste": {**OFF, **PASTE},
    "flip + brightness and contrast": INTENSITY,
    "flip + crop": CROP,
    "flip + paste": PASTE,
    "flip + crop + paste": {**CROP, **PASTE},
    "flip + crop + paste + brightness and contrast": {**CROP, **PASTE, **INTENSITY},
}
# Fixed before any run of this table.
SETTINGS = {
    "class_weight": "sqrt",
    "max_class_weight": 8.0,
    "validation_fraction": None,
    "early_stopping": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", metavar="DATA.npz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, metavar="CONFIGURATION")
    parser.add_argument("--table", action="store_true", help="only print what has been run")
    args = parser.parse_args()
    if not args.table and args.data is None:
        parser.error("give the npz file with the images, or --table")
    wanted = args.only or CONFIGURATIONS
    for name, seed in () if args.table else missing_runs(RECORD, wanted, args.seeds):
        parts = CONFIGURATIONS[name]
        augmentation = None if parts is None else Augmenter(**parts)
        params = {**SETTINGS, "max_epochs": args.epochs, "augmentation": augmentation}
        run = run_once(args.data, params, seed)
        append_run(RECORD, {"configuration": name, **run})
        print(f"{name}, seed {seed}: {run['seconds']} s", flush=True)
    print(table(read_runs(RECORD), baseline="none"))


if __name__ == "__main__":
    main()
