"""Kill workers of a search at random moments, and count what is lost.

In each round, one of two workers, or both, are killed (SIGKILL) after a random while. Trials that
were finished before have to be there afterwards, unchanged; trials that were running have to be
repeated; and in the end the study has to have exactly the number of trials that was asked for.

    python benchmarks/tuning/kills.py [--rounds 20] [--storage postgresql+psycopg://user@host/name]
"""

import argparse
import contextlib
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from sklearn.base import BaseEstimator

from skmars.tuning import SegmenterSearchCV
from skmars.tuning.storages import open_storage
from skmars.tuning.trials import is_to_be_repeated

TRIALS_A_ROUND = 40
X = np.zeros((6, 4, 5), dtype=np.uint8)
Y = (np.arange(6)[:, None, None] + np.zeros((4, 5), dtype=int)) % 2


class Level(BaseEstimator):
    """A segmenter that takes a while, and writes down each score that it has got."""

    def __init__(self, level=0.0, log=None):
        self.level = level
        self.log = log

    def fit(self, X, y):
        """Learn nothing."""
        time.sleep(0.1)
        self.classes_ = np.array([0, 1])
        return self

    def score(self, X, y):
        """Write down what was evaluated."""
        with open(self.log, "a") as file:
            file.write(f"{self.level}\n")
        return -abs(self.level - 100.0)


def workers() -> list[int]:
    """Processes that this one has started."""
    numbers = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                numbers.append(int(path.parent.name))
    return numbers


def finished(trials) -> dict:
    return {
        trial.number: (trial.state, trial.value, trial.params, trial.datetime_complete)
        for trial in trials
        if trial.state.is_finished()
    }


def busy(trials) -> set[int]:
    """Processes that work on a trial."""
    return {
        int(value.split(":")[1])
        for trial in trials
        if trial.state == TrialState.RUNNING
        for name, value in trial.user_attrs.items()
        if name.startswith("worker ")
    }


def kill_round(
    study: optuna.Study, storage: str, search: threading.Thread
) -> tuple[int, int, int]:
    """Kill when all workers are at it; count kills, trials finished before, and those gone."""
    while len(busy(study.get_trials()) & set(workers())) < 2:
        if not search.is_alive():
            raise RuntimeError("the search has ended before the last round")
        time.sleep(0.05)
    time.sleep(random.uniform(0, 1))
    chosen = random.sample(workers(), k=random.choice([1, 1, 2]))
    before = finished(study.get_trials())
    for number in chosen:
        os.kill(number, signal.SIGKILL)
    # As one who comes later finds it.
    after = finished(load(study.study_name, storage).get_trials())
    lost = sum(after.get(number) != trial for number, trial in before.items())
    return [len(chosen), len(before), lost]


def load(name: str, storage: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=open_storage(storage))


def run(storage: str, rounds: int, log: Path) -> None:
    name, n_trials = f"kills-{os.getpid()}", TRIALS_A_ROUND * rounds
    search = SegmenterSearchCV(
        Level(log=str(log)),
        {"level": FloatDistribution(0.0, 200.0)},
        n_trials=n_trials,
        cv=2,
        storage=storage,
        study_name=name,
        sampler="random",
        pruner=None,
        n_workers=2,
        refit=False,
        random_state=0,
    )
    thread = threading.Thread(target=search.fit, args=(X, Y))
    thread.start()
    study = None
    while study is None:
        time.sleep(0.2)
        with contextlib.suppress(KeyError):
            study = load(name, storage)
    print(f"{'round':>5} {'killed':>6} {'finished before':>15} {'lost':>4}", flush=True)
    totals = np.zeros(3, dtype=int)
    for number in range(1, rounds + 1):
        counts = kill_round(study, storage, thread)
        totals += counts
        print(f"{number:5d} {counts[0]:6d} {counts[1]:15d} {counts[2]:4d}", flush=True)
    thread.join()
    report(load(name, storage).get_trials(), n_trials, rounds, totals, log)


def report(trials, n_trials: int, rounds: int, totals, log: Path) -> None:
    gone = [trial for trial in trials if is_to_be_repeated(trial)]
    retried = {trial.user_attrs.get("repeats") for trial in trials}
    scored = log.read_text().split()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    levels = [trial.params["level"] for trial in complete]
    # Both folds of a trial are written down once; half of it, or all but the telling, may be
    # written down by an attempt that was killed.
    lost_levels = {trial.params.get("level") for trial in gone}
    often = {level for level in set(scored) if scored.count(level) > 2}
    rows = {
        "rounds": rounds,
        "workers killed": totals[0],
        "finished trials that were checked after kills": totals[1],
        "of these lost or changed": totals[2],
        "trials that a kill interrupted": len(gone),
        "of these repeated": sum(trial.number in retried for trial in gone),
        "trials asked for": n_trials,
        "trials complete": len(complete),
        "trials failed by themselves": sum(
            trial.state == TrialState.FAIL for trial in trials if trial not in gone
        ),
        "trials left running or in line": sum(not trial.state.is_finished() for trial in trials),
        "finished trials repeated": len(levels)
        - len(set(levels))
        + sum(float(level) not in lost_levels for level in often),
    }
    for error in {trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs}:
        print(error)
    print()
    for name, count in rows.items():
        print(f"{name:46s} {count:6d}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--storage", help="by default a journal in a temporary folder")
    args = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        storage = args.storage or f"journal://{folder}/study.log"
        run(storage, args.rounds, Path(folder) / "scores.txt")


if __name__ == "__main__":
    main()
