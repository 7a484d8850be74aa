"""Cheap trials, and processes that evaluate them, for tests of searches that are killed."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from sklearn.base import BaseEstimator
from skorch.callbacks import Callback

from skmars.tuning.studies import StudySpec
from skmars.tuning.trials import count_trials, is_to_be_repeated, work


class Level(BaseEstimator):
    """A segmenter that takes a while and writes down what befalls it."""

    def __init__(self, level=0.0, trouble=None, seconds=0.0, log=None):
        self.level = level
        self.trouble = trouble
        self.seconds = seconds
        self.log = log

    def fit(self, X, y):
        threads = os.environ.get("OMP_NUM_THREADS")
        write_down(self.log, "begun", self.level, os.getpid(), threads)
        if self.trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        self.classes_ = np.array([0, 1])
        write_down(self.log, "ended", self.level, os.getpid(), threads)
        return self

    def score(self, X, y):
        return -abs(self.level - 100.0)


class Lingers(Callback):
    """Makes the end of the second epoch last, and writes it down."""

    def __init__(self, log, seconds=5.0):
        self.log = log
        self.seconds = seconds

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            write_down(self.log, "begun", os.getpid())
            time.sleep(self.seconds)


@dataclass
class Evaluate:
    """A trial without a segmenter: `troubles` befall the trials of these numbers."""

    log: str
    seconds: float = 0.0
    troubles: dict | None = None
    reports: int = 0

    def __call__(self, trial):
        level = trial.suggest_float("level", 0.0, 200.0)
        write_down(self.log, "begun", level, os.getpid())
        trouble = (self.troubles or {}).get(trial.number)
        if trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == "diverge":
            raise FloatingPointError("has diverged")
        time.sleep(self.seconds)
        for step in range(self.reports):
            trial.report(level, step)
        write_down(self.log, "ended", level, os.getpid())
        return float("nan") if trouble == "nan" else level


def write_down(log, *words):
    with open(log, "a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def read_log(log, word):
    """Lines of what has begun or ended."""
    if not Path(log).exists():
        return []
    lines = [line.split() for line in Path(log).read_text().splitlines()]
    return [line[1:] for line in lines if line[0] == word]


def open_study(storage, *, sampler="random", name="levels"):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spec = StudySpec(
        storage=storage,
        name=name,
        directions=["maximize"],
        sampler=sampler,
        pruner=None,
        seed=0,
        data="",
        objectives=["level"],
        settings={},
    )
    return spec.open()


def search(storage, evaluate, n_trials, **options):
    """What one worker does."""
    work(open_study(storage), evaluate, n_trials=n_trials, **options)


def finished(study):
    """Values of the trials that are done, by their number."""
    state = optuna.trial.TrialState.COMPLETE
    return {trial.number: trial.value for trial in study.get_trials() if trial.state == state}


def check_complete(study, n_trials, before=()):
    """Exactly so many trials, all ended, none twice, and none lost of those there were before."""
    trials = study.get_trials()
    assert not [trial for trial in trials if trial.state == optuna.trial.TrialState.RUNNING]
    assert count_trials(trials) == n_trials
    assert dict(before).items() <= finished(study).items()
    values = list(finished(study).values())
    assert len(set(values)) == len(values)
    attempts = Counter(trial.params.get("level") for trial in trials if trial.params)
    assert max(attempts.values(), default=0) <= 3
    lost = sum(is_to_be_repeated(trial) and trial.user_attrs["retry"] > 0 for trial in trials)
    assert lost == sum("repeats" in trial.user_attrs for trial in trials)


@contextlib.contextmanager
def forks():
    """Start processes with a function; they end with the block in any case."""
    context, processes = multiprocessing.get_context("fork"), []

    def start(function, *args, **kwargs):
        process = context.Process(target=function, args=args, kwargs=kwargs)
        process.start()
        processes.append(process)
        return process

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.join()


def join(processes, seconds=30.0):
    """Wait for processes, and return how they ended."""
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0))
    return [process.exitcode for process in processes]


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "has not come about"
        time.sleep(0.02)


@contextlib.contextmanager
def again_and_again(action, pause):
    """Repeat an action in the background."""
    done = threading.Event()

    def repeat():
        while not done.wait(pause):
            action()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def processes_with(word):
    """Numbers of the processes whose command line has a word."""
    numbers = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in path.read_bytes():
                numbers.append(int(path.parent.name))
    return numbers
