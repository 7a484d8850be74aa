"""How equal the folds of several splitters are: shares of each class, sizes, scenes torn apart.

A deviation is that of a class's share of a fold from 1/K of all its pixels, relative to 1/K;
printed are the worst and the mean over folds, each the mean over seeds.

    python benchmarks/folds.py [DATA.npz] [--splits 5] [--seeds 10] [--images 1000]

DATA.npz has AN2DL's array `training_set` of images and masks, and `training_sol`, the scene of
each. Without it the data is generated terrain, every nine images of which are called one scene.
"""

import argparse
import time
import warnings

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold

from skmars.datasets import make_terrain
from skmars.model_selection import SegmentationKFold, class_counts


def read(path: str | None, n_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks and the scene of each."""
    if path is None:
        _, y = make_terrain(n_images, random_state=0)
        return y, np.arange(n_images) // 9
    with np.load(path) as data:
        y = np.ascontiguousarray(data["training_set"][:, 1])
        return y, data["training_sol"]


def measure(make_folds, y, target, groups, scenes, n_seeds: int) -> list[str]:
    """Cells of a row of the table."""
    counts = class_counts(y, np.unique(y))
    worst, mean, sizes, lacking, torn, seconds = [], [], [], [], [], []
    for seed in range(n_seeds):
        start = time.perf_counter()
        tests = [test for _, test in make_folds(seed).split(y, target, groups)]
        seconds.append(time.perf_counter() - start)
        share = np.array([counts[test].sum(axis=0) for test in tests]) / counts.sum(axis=0)
        deviation = np.abs(share * len(tests) - 1)
        worst.append(deviation.max(axis=0))
        mean.append(deviation.mean(axis=0))
        sizes += [len(test) for test in tests]
        lacking.append(np.count_nonzero(share == 0))
        of_scene = [len(set(scenes[test])) for test in tests]
        torn.append(sum(of_scene) - len(set(scenes)))
    cells = [
        f"{100 * a:.1f} / {100 * b:.1f}"
        for a, b in zip(np.mean(worst, axis=0), np.mean(mean, axis=0), strict=True)
    ]
    return [
        *cells,
        f"{100 * np.mean(mean):.1f}",
        f"{min(sizes)} to {max(sizes)}",
        f"{np.mean(lacking):.1f}",
        f"{np.mean(torn):.0f}",
        f"{np.mean(seconds):.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--images", type=int, default=1000, help="of generated terrain")
    options = parser.parse_args()
    # StratifiedGroupKFold warns that a class dominates fewer images than there are folds.
    warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")

    y, scenes = read(options.data, options.images)
    labels = np.unique(y)
    dominant = labels[class_counts(y, labels).argmax(axis=1)]
    frequencies = class_counts(y, labels).sum(axis=0) / y.size
    print(f"{len(y)} images, {len(set(scenes))} scenes, {options.splits} folds; ", end="")
    print(", ".join(f"{f:.2%} of class {c}" for c, f in zip(labels, frequencies, strict=True)))
    print()

    k, shuffled = options.splits, {"n_splits": options.splits, "shuffle": True}
    rows = {
        "KFold": (KFold, dominant, None),
        "SegmentationKFold": (SegmentationKFold, y, None),
        "GroupKFold": (GroupKFold, dominant, scenes),
        "StratifiedGroupKFold, dominant class": (StratifiedGroupKFold, dominant, scenes),
        "SegmentationKFold, groups": (SegmentationKFold, y, scenes),
    }
    head = [
        "splitter",
        *(f"class {label}, %" for label in labels),
        "mean, %",
        f"sizes (of {len(y) / k:.0f})",
        "classes lacking",
        "scenes torn apart",
        "s",
    ]
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for name, (splitter, target, groups) in rows.items():

        def make_folds(seed, splitter=splitter):
            return splitter(**shuffled, random_state=seed)

        cells = measure(make_folds, y, target, groups, scenes, options.seeds)
        print("| " + " | ".join([name, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
