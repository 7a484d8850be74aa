"""What augmentation costs, as a share of a training step of the default net.

    python benchmarks/speed/augmentation.py [--rounds 10] [--batch-size 16]

Steps and changes of a batch take turns, so that other work on the machine slows both alike.
"""

import argparse
import os
import time

# Before torch is loaded: another busy process must not bring the threads of both to a standstill.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np

from skmars import Augmenter, MarsSegmenter
from skmars.batches import SegmentationDataset
from skmars.datasets import make_terrain
from skmars.transforms import Batch

OFF = {"horizontal_flip": False}
SETTINGS = {
    "horizontal flip": {},
    "both flips": {"vertical_flip": True},
    "brightness, contrast": {**OFF, "brightness": 0.3, "contrast": 0.3},
    "crop": {**OFF, "crop_scale": 0.6},
    "paste": {**OFF, "paste_rare_class": 0.5},
    "everything": {
        "vertical_flip": True,
        "brightness": 0.3,
        "contrast": 0.3,
        "crop_scale": 0.6,
        "paste_rare_class": 0.5,
    },
}


def seconds(function, *args) -> float:
    """Time of one call."""
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    X, y = make_terrain(10 * args.batch_size, random_state=0)
    segmenter = MarsSegmenter(max_epochs=1, batch_size=args.batch_size, random_state=0).fit(X, y)
    net, dataset = segmenter.net_, SegmentationDataset(X, y, segmenter.classes_, None)
    images, (target, weight) = dataset[np.arange(args.batch_size)]
    rng = np.random.default_rng(0)
    changes = {
        name: Augmenter(**params).prepare(dataset, segmenter.mean_, segmenter.scale_, rng)
        for name, params in SETTINGS.items()
    }

    steps, costs = [], {name: [] for name in changes}
    for _ in range(args.rounds):
        steps.append(seconds(net.train_step, (images, (target, weight))))
        for name, change in changes.items():
            costs[name].append(seconds(change, Batch(images.float(), target, weight)))
    step = np.median(steps[1:])
    print(f"training step of {args.batch_size} images: {1000 * step:.1f} ms\n")
    print(f"{'augmentation':<22} {'ms':>7} {'share of a step':>16}")
    for name, times in costs.items():
        cost = np.median(times[1:])
        print(f"{name:<22} {1000 * cost:7.2f} {cost / step:15.1%}")


if __name__ == "__main__":
    main()
