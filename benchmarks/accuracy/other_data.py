"""The defaults on other data, unchanged: training must not diverge, scores must be sensible.

    python benchmarks/accuracy/other_data.py [--seconds 60] [--seeds 3] [--only DATA ...]
        [--machine NAME]
    python benchmarks/accuracy/other_data.py --table [--seconds 60] [--machine NAME]

Scores are of images that are not trained on; beside them that of the most frequent class.
Runs go to `results/other_data_<seconds>[_<machine>].jsonl`; those that are there are not repeated.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from protocol import RESULTS, append_run, markdown, missing_runs, read_runs, versions

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


def run(data: Data, seconds: float, seed: int) -> dict[str, Any]:
    """Train the defaults, and score them; one line of the record."""
    X, y, X_test, y_test = data
    started = time.perf_counter()
    segmenter = MarsSegmenter(time_limit=seconds, random_state=seed).fit(X, y)
    taken = time.perf_counter() - started
    most = segmenter.classes_[segmenter.class_frequencies_.argmax()]
    majority = np.full_like(y_test, most)
    return {
        "seconds": round(taken, 1),
        "epochs": segmenter.n_iter_,
        "images_per_second": round(len(X) * segmenter.n_iter_ / taken, 1),
        "n_classes": len(segmenter.classes_),
        "n_parameters": segmenter.n_parameters_,
        "precision": segmenter.precision_,
        "mean_iou": float(segmenter.score(X_test, y_test)),
        "most_frequent": float(mean_iou_score(y_test, majority, labels=segmenter.classes_)),
    }


def table_rows(runs: list[Mapping[str, Any]]) -> list[list[str]]:
    """Means over the seeds, and each of them; header first."""
    rows = [["data", "classes", "mean IoU", "each seed", "most frequent class", "epochs"]]
    by_name: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for line in sorted(runs, key=lambda line: line["seed"]):
        by_name[line["configuration"]].append(line)
    for name, group in by_name.items():
        scores = [line["mean_iou"] for line in group]
        rows.append(
            [
                name,
                str(group[0]["n_classes"]),
                f"{np.mean(scores):.3f}",
                ", ".join(f"{score:.3f}" for score in scores),
                f"{np.mean([line['most_frequent'] for line in group]):.3f}",
                f"{np.mean([line['epochs'] for line in group]):.0f}",
            ]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="of each fit")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=DATA, default=list(DATA), metavar="DATA")
    parser.add_argument("--machine", help="its name, for a record of its own: seconds differ")
    parser.add_argument("--table", action="store_true", help="only print what has been run")
    args = parser.parse_args()
    parts = ["other_data", str(args.seconds), *([args.machine] if args.machine else [])]
    record = RESULTS / f"{'_'.join(parts)}.jsonl"
    for name, seed in () if args.table else missing_runs(record, args.only, args.seeds):
        line = run(DATA[name](seed), args.seconds, seed)
        append_run(record, {"configuration": name, "seed": seed, "versions": versions(), **line})
        print(f"{name}, seed {seed}: {line['seconds']} s", flush=True)
    print(markdown(table_rows(read_runs(record))))


if __name__ == "__main__":
    main()
