"""What the tuning benchmarks search: tiles of half the size, a small net, few epochs.

A fit sees 182 tiles of 32x64 pixels 18 times, in some 370 steps of a net with 8 base channels:
few, but enough for parameters to matter. Scores are of 58 tiles of other scenes.
"""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path

# Before torch is loaded: another busy process must not bring the threads of both to a standstill.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import optuna

from skmars import MarsSegmenter
from skmars.datasets import load_an2dl, make_terrain
from skmars.model_selection import class_counts, holdout_split
from skmars.tuning import SegmenterSearchCV, default_space

RESULTS = Path(__file__).parent / "results"
N_IMAGES = 240

SMALL = {
    "base_channels": 8,
    "max_epochs": 18,
    "fine_tune_epochs": 4,
    "batch_size": 8,
    "ema_decay": None,
    "ignore_label": 0,
    "precision": "float32",
    "random_state": 0,
}


def load(path: str | None):
    """Some images of all scenes at half their size; generated ones without a path."""
    if path is None:
        X, y = make_terrain(N_IMAGES, class_frequencies=[2, 3, 3, 2, 0.5], random_state=0)
        return X[:, ::2, ::2], y[:, ::2, ::2], np.arange(N_IMAGES)
    data = load_an2dl(path)
    rows = np.linspace(0, len(data.images) - 1, N_IMAGES).round().astype(int)
    return data.images[rows, ::2, ::2], data.target[rows, ::2, ::2], data.groups[rows]


def split(y: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and rows of other scenes to score."""
    labels, rng = np.setdiff1d(y, SMALL["ignore_label"]), np.random.default_rng(0)
    return holdout_split(class_counts(y, labels), 0.25, groups=groups, rng=rng)


def arguments(
    description: str, settings: Collection[str] = (), **numbers: int
) -> argparse.Namespace:
    """Options of a benchmark: a file, numbers with these defaults, and which settings to run."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("data", nargs="?", metavar="DATA.npz")
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    if settings:
        parser.add_argument("--only", nargs="+", choices=settings, default=settings)
    return parser.parse_args()


def search(path: str | None, *, seed: int, n_threads: int | str = 1, **params) -> dict:
    """Search the default space once; a row of a record."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    X, y, groups = load(path)
    segmenter = MarsSegmenter(**SMALL, n_threads=n_threads)
    finder = SegmenterSearchCV(
        segmenter,
        default_space(segmenter),
        cv=[split(y, groups)],
        refit=False,
        random_state=seed,
        **params,
    )
    started = time.perf_counter()
    finder.fit(X, y, groups=groups)
    seconds = time.perf_counter() - started
    results = finder.cv_results_
    fits = [
        sum(trial.user_attrs.get("fit_time", [])) + sum(trial.user_attrs.get("score_time", []))
        for trial in finder.study_.trials
    ]
    return {
        "seed": seed,
        "seconds": round(seconds, 2),
        "best": round(finder.best_score_, 4),
        "best_so_far": np.fmax.accumulate(np.nan_to_num(results["mean_test_score"], nan=-1.0))
        .round(4)
        .tolist(),
        "states": dict(Counter(results["state"].tolist())),
        "seconds_in_fits": round(sum(fits), 2),
    }


def searches(names: Collection[str], n_trials: int) -> dict[str, dict]:
    """Parameters of searches, by the name of their sampler and, after a comma, their pruner."""
    settings = {}
    for name in names:
        sampler, _, pruner = name.partition(", ")
        settings[name] = {"sampler": sampler, "pruner": pruner or None, "n_trials": n_trials}
    return settings


def append(name: str, row: dict) -> None:
    """Add a row to a record."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def rows(name: str) -> list[dict]:
    """All rows of a record."""
    path = RESULTS / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run_missing(
    name: str, path: str | None, settings: dict[str, dict], n_seeds: int
) -> list[dict]:
    """Run what the record does not have, settings in turns, and return all of it.

    Benchmarks with the same settings can share a record.
    """
    done = {(row["setting"], row["seed"]) for row in rows(name)}
    for seed in range(n_seeds):
        for setting, params in settings.items():
            if (setting, seed) not in done:
                row = {"setting": setting, **search(path, seed=seed, **params)}
                append(name, row)
                print(
                    f"{setting}, seed {seed}: {row['seconds']} s, best {row['best']}", flush=True
                )
    return rows(name)


def of(table: list[dict], setting: str, what: str) -> np.ndarray:
    """A figure of one setting, by seed."""
    chosen = sorted((row for row in table if row["setting"] == setting), key=lambda r: r["seed"])
    return np.array([row[what] for row in chosen])
