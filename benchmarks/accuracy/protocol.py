"""What all accuracy benchmarks share: data, splits by scene, scores, a record, and a table.

Whole sols (Martian days) are either trained on or scored, so that no scene is on both sides. A
run is scored on sols that are held out of the training set; those of the test set are not looked
at. Each run appends one line to a file of JSON lines, so that a benchmark that was stopped goes
on where it was, and its table can be made at any time.
"""

import argparse
import json
import os
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

# Before torch is loaded: another busy process must not bring the threads of both to a standstill.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np

from skmars import MarsSegmenter, OutlierRemover
from skmars.datasets import load_an2dl
from skmars.metrics import confusion_counts, iou_from_counts
from skmars.model_selection import class_counts, holdout_split

RESULTS = Path(__file__).parent / "results"
LABELS = (1, 2, 3, 4)
BACKGROUND = 0
N_BOOTSTRAPS = 1000


def load_training_set(path: str):
    """Images, masks and sols of the training set, without the images that share one mask."""
    data = load_an2dl(path)
    remover = OutlierRemover(method="repeated_mask").fit(data.images, data.target)
    kept = ~remover.outlier_mask_
    return data.images[kept], data.target[kept], data.groups[kept]


def development_split(y, sols, seed: int):
    """Rows to train on and rows to score, whole sols each, with the rare classes in both."""
    rng = np.random.default_rng(seed)
    return holdout_split(class_counts(y, np.array(LABELS)), 0.2, groups=sols, rng=rng)


def run_table(
    name: str,
    configurations: Mapping[str, Mapping[str, Any]],
    *,
    settings: Mapping[str, Any],
    baseline: str,
    epochs: int | None = None,
) -> None:
    """Run what is missing of a table, as the options of the command say, and print it.

    Parameters
    ----------
    name : str
        Of the file in `results/`; if seconds are the budget, they are added.
    configurations : dict of str to dict
        Hyperparameters for each row of the table.
    settings : dict
        Those of all rows.
    baseline : str
        The row that the others are compared with.
    epochs : int or None, default=None
        Budget of a run; None for seconds, which are an option then.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?", metavar="DATA.npz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=configurations, metavar="ROW")
    parser.add_argument("--table", action="store_true", help="only print what has been run")
    if epochs is None:
        parser.add_argument("--seconds", type=int, default=300, help="budget of a run")
    args = parser.parse_args()
    if not args.table and args.data is None:
        parser.error("give the npz file with the images, or --table")
    if epochs is None:
        budget, name = {"time_limit": args.seconds}, f"{name}_{args.seconds}"
    else:
        budget = {"max_epochs": epochs}
    record = RESULTS / f"{name}.jsonl"
    wanted = args.only or configurations
    for row, seed in () if args.table else missing_runs(record, wanted, args.seeds):
        run = run_once(args.data, {**settings, **budget, **configurations[row]}, seed)
        append_run(record, {"configuration": row, **run})
        print(f"{row}, seed {seed}: {run['seconds']} s", flush=True)
    print(table(read_runs(record), baseline))


def run_once(path: str, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train on one split and score it; one line of the record.

    With "then" among the parameters, a second fit goes on from the first with those; it gets the
    share of the time that "then" has under "time_share".
    """
    X, y, sols = load_training_set(path)
    train, dev = development_split(y, sols, seed)
    first, then = dict(params), dict(params.get("then", {}))
    first.pop("then", None)
    if share := then.pop("time_share", None):
        then["time_limit"] = share * first["time_limit"]
        first["time_limit"] *= 1 - share
    segmenter = MarsSegmenter(ignore_label=BACKGROUND, random_state=seed, **first)
    started = time.perf_counter()
    segmenter.fit(X[train], y[train], groups=sols[train])
    if then:
        segmenter.set_params(warm_start=True, **then)
        segmenter.fit(X[train], y[train], groups=sols[train])
    seconds = time.perf_counter() - started
    predicted = segmenter.predict(X[dev])
    counts = {
        str(sol): confusion_counts(
            y[dev][sols[dev] == sol],
            predicted[sols[dev] == sol],
            labels=LABELS,
            ignore_label=BACKGROUND,
        ).tolist()
        for sol in np.unique(sols[dev])
    }
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "epochs": segmenter.n_iter_,
        "images_per_second": round(len(train) * segmenter.n_iter_ / seconds, 1),
        "n_parameters": segmenter.n_parameters_,
        "precision": segmenter.precision_,
        "counts_by_sol": counts,
    }


def read_runs(record: Path) -> list[dict[str, Any]]:
    """All lines of a record; none if there is no such file yet."""
    if not record.exists():
        return []
    return [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]


def missing_runs(record: Path, names: Collection[str], n_seeds: int) -> Iterator[tuple[str, int]]:
    """Configurations and seeds that are not in a record yet, one seed after another."""
    done = {(run["configuration"], run["seed"]) for run in read_runs(record)}
    for seed in range(n_seeds):
        for name in names:
            if (name, seed) not in done:
                yield name, seed


def append_run(record: Path, run: Mapping[str, Any]) -> None:
    """Add a line to a record."""
    record.parent.mkdir(exist_ok=True)
    with record.open("a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")


def iou_of(run: Mapping[str, Any]) -> np.ndarray:
    """IoU of each class from the confusion matrix of all sols together."""
    return iou_from_counts(np.sum(list(run["counts_by_sol"].values()), axis=0))


def bootstrap(runs, baseline=None) -> tuple[float, float]:
    """95 % interval of the mean over runs of the mean IoU, with the sols drawn anew.

    With a `baseline`, runs of the same seeds: of the difference to it, on the same sols.
    """
    rng = np.random.default_rng(0)
    means = np.zeros(N_BOOTSTRAPS)
    for place, run in enumerate(runs):
        matrices = np.array(list(run["counts_by_sol"].values()))
        picks = rng.multinomial(
            len(matrices), np.full(len(matrices), 1 / len(matrices)), N_BOOTSTRAPS
        )
        means += _mean_iou(np.tensordot(picks, matrices, 1)) / len(runs)
        if baseline is not None:
            others = np.array(list(baseline[place]["counts_by_sol"].values()))
            means -= _mean_iou(np.tensordot(picks, others, 1)) / len(runs)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _mean_iou(counts: np.ndarray) -> np.ndarray:
    return np.array([np.nanmean(iou_from_counts(matrix)) for matrix in counts])


def table(runs: list[dict[str, Any]], baseline: str) -> str:
    """Markdown: mean and range over seeds, the difference to a baseline, and IoU by class."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        by_name.setdefault(run["configuration"], []).append(run)
    header = ["configuration", "seeds", "mean IoU", "range", f"minus {baseline}", "95 % interval"]
    header += [f"IoU {label}" for label in LABELS] + ["images/s"]
    rows = [header, ["---"] * len(header)]
    for name, group in by_name.items():
        iou = np.array([iou_of(run) for run in group])
        means = np.nanmean(iou, axis=1)
        others = [] if name == baseline else by_name.get(baseline, [])
        rows.append(
            [
                name,
                str(len(group)),
                f"{means.mean():.3f}",
                f"{means.min():.3f} to {means.max():.3f}",
                *_gain(group, others),
                *(f"{value:.3f}" for value in np.nanmean(iou, axis=0)),
                f"{np.mean([run['images_per_second'] for run in group]):.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _gain(runs, others) -> tuple[str, str]:
    """Mean difference to other runs of the same seeds, and its interval."""
    partners = {run["seed"]: run for run in others}
    pairs = [(run, partners[run["seed"]]) for run in runs if run["seed"] in partners]
    if not pairs:
        return "", ""
    gain = np.mean([np.nanmean(iou_of(run)) - np.nanmean(iou_of(other)) for run, other in pairs])
    low, high = bootstrap(*zip(*pairs, strict=True))
    return f"{gain:+.3f}", f"{low:+.3f} to {high:+.3f}"
