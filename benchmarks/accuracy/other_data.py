"""The defaults on other data, unchanged: training must not diverge, scores must be sensible.

python benchmarks/accuracy/other_data.py [--seconds 60] [--seeds 3] [--only DATA ...]

Scores are of images that are not trained on; beside them that of the most frequent class.
"""

import argparse
import os
import time
from collections.abc import Callable

# Before torch is loaded: another busy process must not bring the threads of both to a standstill.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np

from skmars import MarsSegmenter
from skmars.datasets import make_terrain
from skmars.metrics import mean_iou_score

N_TEST = 60
Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def terrain(n_train: int, seed: int, **params) -> Data:
    """Generated scenes to train on and others to score."""
    X, y = make_terrain(n_train + N_TEST, random_state=seed, **params)
    return X[:n_train], y[:n_train], X[n_train:], y[n_train:]


def colored(seed: int) -> Data:
    """Terrain in three channels, of which each shows the scene with another light and noise."""
    X, y, X_test, y_test = terrain(400, seed)
    rng = np.random.default_rng(seed)

    def color(images: np.ndarray) -> np.ndarray:
        gains = np.array([1.0, 0.7, 0.5])
        bright = images[..., None] * gains + rng.normal(0, 6, (*images.shape, 3))
        return np.clip(bright, 0, 255).astype(np.uint8)

    return color(X), y, color(X_test), y_test


def two_classes(seed: int) -> Data:
    """Bedrock or not."""
    X, y, X_test, y_test = terrain(400, seed)
    return X, (y == 2).astype(np.uint8), X_test, (y_test == 2).astype(np.uint8)


def twelve_classes(seed: int) -> Data:
    """Terrain cut into classes by its distance from the horizon as well, with odd labels."""
    X, y, X_test, y_test = terrain(400, seed)

    def split(masks: np.ndarray) -> np.ndarray:
        third = np.arange(masks.shape[1])[:, None] * 3 // masks.shape[1]
        return np.where(masks == 4, 3, masks).astype(np.int16) * 30 + third.astype(np.int16) * 7

    return X, split(y), X_test, split(y_test)


DATA: dict[str, Callable[[int], Data]] = {
    "make_terrain, 400 images": lambda seed: terrain(400, seed),
    "RGB": colored,
    "2 classes": two_classes,
    "12 classes": twelve_classes,
    "40 training images": lambda seed: terrain(40, seed),
    "256x256": lambda seed: terrain(100, seed, shape=(256, 256)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="of each fit")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=DATA, default=list(DATA), metavar="DATA")
    args = parser.parse_args()
    print("| data | classes | mean IoU, each seed | most frequent class | epochs | seconds |")
    print("|---|---|---|---|---|---|")
    for name in args.only:
        scores, bases = [], []
        for seed in range(args.seeds):
            X, y, X_test, y_test = DATA[name](seed)
            started = time.perf_counter()
            segmenter = MarsSegmenter(time_limit=args.seconds, random_state=seed).fit(X, y)
            seconds = time.perf_counter() - started
            scores.append(segmenter.score(X_test, y_test))
            most = segmenter.classes_[segmenter.class_frequencies_.argmax()]
            majority = np.full_like(y_test, most)
            bases.append(mean_iou_score(y_test, majority, labels=segmenter.classes_))
        each = ", ".join(f"{score:.3f}" for score in scores)
        print(
            f"| {name} | {len(segmenter.classes_)} | {each} | {np.mean(bases):.3f} "
            f"| {segmenter.n_iter_} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
