"""Augmentations alone and combined, at one budget of epochs.

    python benchmarks/accuracy/augmentations.py DATA.npz [--seeds 3] [--only ROW ...]
    python benchmarks/accuracy/augmentations.py --table

Runs go to `results/augmentations.jsonl`; those that are there are not repeated.
"""

from protocol import run_table

from skmars import Augmenter

INTENSITY = {"brightness": 0.3, "contrast": 0.3}
CROP = {"crop_scale": 0.6}
PASTE = {"paste_rare_class": 0.5}
OFF = {"horizontal_flip": False}
AUGMENTATIONS = {
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
    "patch_size": 1,
    "dropout": 0.1,
    "class_weight": "sqrt",
    "max_class_weight": 8.0,
    "ema_decay": None,
    "validation_fraction": None,
    "early_stopping": False,
    "tta": False,
}


if __name__ == "__main__":
    run_table(
        "augmentations",
        {
            name: {"augmentation": None if parts is None else Augmenter(**parts)}
            for name, parts in AUGMENTATIONS.items()
        },
        settings=SETTINGS,
        baseline="none",
        epochs=8,
    )
