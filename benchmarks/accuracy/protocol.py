"""What all accuracy benchmarks share: data, splits by scene, scores, a record, and a table.

Whole sols (Martian days) are either trained on or scored, so that no scene is on both sides.
Choices are made on sols that are held out of the training set; those of the test set are for the
end, with `--test` (docs/accuracy.md tells of exceptions). Each run appends one line to a file of
JSON lines, so that a benchmark that was stopped goes on where it was, and its table can be made at
any time.
"""

import argparse
import csv
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Before torch is loaded: another busy process must not bring the threads of both to a standstill.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import torch

import skmars
from skmars import MarsSegmenter, OutlierRemover
from skmars._fitted import changed_parameters
from skmars.datasets import load_an2dl
from skmars.metrics import confusion_counts, iou_from_counts
from skmars.model_selection import class_counts, holdout_split

RESULTS = Path(__file__).parent / "results"
LABELS = (1, 2, 3, 4)
BACKGROUND = 0
N_BOOTSTRAPS = 1000


class Split(NamedTuple):
    """Images, masks and sols to train on, and those to score."""

    X: np.ndarray
    y: np.ndarray
    sols: np.ndarray
    X_scored: np.ndarray
    y_scored: np.ndarray
    sols_scored: np.ndarray

    def counts_by_sol(self, predicted: np.ndarray) -> dict[str, list[list[int]]]:
        """Confusion matrix of each sol that is scored."""
        return {
            str(sol): confusion_counts(
                self.y_scored[self.sols_scored == sol],
                predicted[self.sols_scored == sol],
                labels=LABELS,
                ignore_label=BACKGROUND,
            ).tolist()
            for sol in np.unique(self.sols_scored)
        }


Run = Callable[[Split, Mapping[str, Any], int], dict[str, Any]]


def make_split(path: str, seed: int, *, test: bool = False) -> Split:
    """Whole sols to train on and to score, without the training images that share one mask.

    The sols to score are a fifth of the training set's, another one for each seed, with the rare
    classes in both parts; with `test`, those of the test set.
    """
    data = load_an2dl(path)
    remover = OutlierRemover(method="repeated_mask").fit(data.images, data.target)
    kept = ~remover.outlier_mask_
    X, y, sols = data.images[kept], data.target[kept], data.groups[kept]
    if test:
        return Split(X, y, sols, data.test_images, data.test_target, data.test_groups)
    rng = np.random.default_rng(seed)
    train, scored = holdout_split(class_counts(y, np.array(LABELS)), 0.2, groups=sols, rng=rng)
    return Split(X[train], y[train], sols[train], X[scored], y[scored], sols[scored])


def run_table(
    name: str,
    configurations: Mapping[str, Mapping[str, Any]],
    *,
    baseline: str,
    settings: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    run: Run | None = None,
) -> None:
    """Run what is missing of a table, as the options of the command say, and print it.

    Parameters
    ----------
    name : str
        Of the file in `results/`; a budget that is an option is added.
    configurations : dict of str to dict
        Hyperparameters for each row of the table.
    baseline : str
        The row that the others are compared with.
    settings : dict
        Hyperparameters of all rows.
    epochs : int or None, default=None
        Budget of a run; None for an option of the command, seconds or epochs.
    run : callable, default=None
        What takes a split, the hyperparameters of a row and a seed, and returns a line of the
        record; by default `run_segmenter`.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?", metavar="DATA.npz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=configurations, metavar="ROW")
    parser.add_argument("--table", action="store_true", help="only print what has been run")
    parser.add_argument("--csv", metavar="FILE", help="write the table there as well")
    parser.add_argument("--test", action="store_true", help="score the sols of the test set")
    if epochs is None:
        parser.add_argument("--seconds", type=int, default=300, help="budget of a run")
        parser.add_argument("--epochs", type=int, help="budget of a run instead of seconds")
        parser.add_argument("--machine", help="its name, for a record of its own: seconds differ")
    args = parser.parse_args()
    if not args.table and args.data is None:
        parser.error("give the npz file with the images, or --table")
    chosen = args.epochs if epochs is None else epochs
    if chosen is None:
        budget, parts = {"time_limit": args.seconds}, [name, str(args.seconds)]
    else:
        budget = {"max_epochs": chosen}
        parts = [name] if epochs else [name, str(chosen), "epochs"]
    parts += ["test"] * args.test
    if chosen is None and args.machine:
        parts.append(args.machine)
    record = RESULTS / f"{'_'.join(parts)}.jsonl"
    wanted = args.only or configurations
    for row, seed in () if args.table else missing_runs(record, wanted, args.seeds):
        params = {**(settings or {}), **budget, **configurations[row]}
        split = make_split(args.data, seed, test=args.test)
        line = (run or run_segmenter)(split, params, seed)
        append_run(record, {"configuration": row, "seed": seed, "versions": versions(), **line})
        print(f"{row}, seed {seed}: {line['seconds']} s", flush=True)
    # Where epochs are the budget, how fast they were does not matter, and is another day's.
    rows = table_rows(read_runs(record), baseline, with_speed=chosen is None)
    print(markdown(rows))
    if args.csv:
        with open(args.csv, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


def run_segmenter(
    split: Split,
    params: Mapping[str, Any],
    seed: int,
    kind: type[MarsSegmenter] = MarsSegmenter,
    split_then: Split | None = None,
) -> dict[str, Any]:
    """Train a MarsSegmenter and score it; one line of the record.

    With "then" among the parameters, a second fit goes on from the first with those, on
    `split_then` if that is given; it gets the share of the time that "then" has under
    "time_share".
    """
    first, then = dict(params), dict(params.get("then", {}))
    first.pop("then", None)
    if share := then.pop("time_share", None):
        then["time_limit"] = share * first["time_limit"]
        first["time_limit"] *= 1 - share
    segmenter = kind(**{"ignore_label": BACKGROUND, "random_state": seed, **first})
    told = {name: repr(value) for name, value in changed_parameters(segmenter).items()}
    if then:
        told["then"] = repr(then)
    started = time.perf_counter()
    segmenter.fit(split.X, split.y, groups=split.sols)
    if then:
        split = split_then or split
        segmenter.set_params(warm_start=True, **then)
        segmenter.fit(split.X, split.y, groups=split.sols)
    seconds = time.perf_counter() - started
    line = line_of_record(segmenter, split, seconds, predict(segmenter, split.X_scored))
    return {"params": told, **line}


def predict(segmenter: MarsSegmenter, X: np.ndarray) -> np.ndarray:
    """Predicted masks; where the background is a class, the most probable of the others."""
    if BACKGROUND not in segmenter.classes_:
        return segmenter.predict(X)
    others = np.flatnonzero(segmenter.classes_ != BACKGROUND)
    return segmenter.classes_[others][segmenter.predict_proba(X)[:, others].argmax(axis=1)]


def line_of_record(
    segmenter: MarsSegmenter, split: Split, seconds: float, predicted: np.ndarray
) -> dict[str, Any]:
    """What a record tells of a training and of the masks that it has led to."""
    return {
        "seconds": round(seconds, 1),
        "epochs": segmenter.n_iter_,
        "images_per_second": round(len(split.X) * segmenter.n_iter_ / seconds, 1),
        "n_parameters": segmenter.n_parameters_,
        "precision": segmenter.precision_,
        "counts_by_sol": split.counts_by_sol(predicted),
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


def versions() -> dict[str, str]:
    """What a run was made with."""
    return {"skmars": skmars.__version__, "torch": torch.__version__}


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


def table_rows(
    runs: list[dict[str, Any]], baseline: str, *, with_speed: bool = True
) -> list[list[str]]:
    """Mean and range over seeds, the difference to a baseline, and IoU by class; header first.

    Other figures that a run has under "scores" follow, as means over the seeds.
    """
    by_name: dict[str, list[dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        by_name.setdefault(run["configuration"], []).append(run)
    scores = sorted({name for run in runs for name in run.get("scores", ())})
    header = ["configuration", "seeds", "mean IoU", "range", f"minus {baseline}", "95 % interval"]
    header += [f"IoU {label}" for label in LABELS] + ["images/s"] * with_speed + scores
    rows = [header]
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
                *[f"{np.mean([run['images_per_second'] for run in group]):.0f}"] * with_speed,
                *(_mean_score(group, name) for name in scores),
            ]
        )
    return rows


def markdown(rows: list[list[str]]) -> str:
    """Write a table whose first row is its header."""
    header, *others = rows
    lines = [header, ["---"] * len(header), *others]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean_score(runs, name: str) -> str:
    values = [run["scores"][name] for run in runs if name in run.get("scores", ())]
    return f"{np.mean(values):.4f}" if values else ""


def _gain(runs, others) -> tuple[str, str]:
    """Mean difference to other runs of the same seeds and sols, and its interval."""
    partners = {(run["seed"], *run["counts_by_sol"]): run for run in others}
    keys = [(run["seed"], *run["counts_by_sol"]) for run in runs]
    pairs = [(run, partners[key]) for key, run in zip(keys, runs, strict=True) if key in partners]
    if not pairs:
        return "", ""
    gain = np.mean([np.nanmean(iou_of(run)) - np.nanmean(iou_of(other)) for run, other in pairs])
    low, high = bootstrap(*zip(*pairs, strict=True))
    return f"{gain:+.3f}", f"{low:+.3f} to {high:+.3f}"
