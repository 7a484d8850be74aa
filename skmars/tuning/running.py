"""The search in this process, or in several that share the machine."""

import logging
import os
import subprocess
import time
from collections.abc import Callable
from functools import partial

import optuna
from optuna.trial import TrialState
from sklearn import get_config

from skmars._interrupts import noting_interrupts
from skmars.tuning.evaluation import Evaluation
from skmars.tuning.progress import Progress
from skmars.tuning.studies import StudySpec
from skmars.tuning.trials import finished_trials, is_hopeless, mend, work
from skmars.tuning.worker_process import hand_over, start_worker

__all__ = ["search_here", "search_with_workers"]

# So many workers that end by themselves are replaced, while no trial comes to an end.
MAX_REPLACEMENTS = 10
POLL_SECONDS = 0.2
SECONDS_TO_STOP = 20.0

_logger = logging.getLogger("skmars")


def search_here(
    study: optuna.Study,
    evaluation: Evaluation,
    n_trials: int | None,
    deadline: float | None,
    progress: Progress,
) -> None:
    """Evaluate trials in this process, until there are enough or Ctrl-C is pressed.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C is pressed before the study has a complete trial.
    """

    def evaluate(trial: optuna.Trial):
        progress.update()
        return evaluation(trial)

    with noting_interrupts() as interrupted:
        try:
            work(
                study,
                evaluate,
                n_trials=n_trials,
                deadline=deadline,
                is_stopped=interrupted.is_set,
            )
        except KeyboardInterrupt:
            if not interrupted.is_set():
                raise
    if interrupted.is_set() and not _has_found(study):
        raise KeyboardInterrupt


def search_with_workers(
    study: optuna.Study,
    spec: StudySpec,
    evaluation: Evaluation,
    n_trials: int | None,
    deadline: float | None,
    progress: Progress,
) -> None:
    """Let processes evaluate trials, and put new ones in the place of those that die.

    Each worker gets its share of the cores.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C is pressed before the study has a complete trial.
    """
    job = {"open_study": spec.open, "n_trials": n_trials, "deadline": deadline}
    with hand_over(evaluation, config=get_config(), **job) as folder:
        workers: list[subprocess.Popen] = []
        start = partial(start_worker, folder, max(1, _n_cores() // spec.n_workers))
        try:
            while len(workers) < spec.n_workers:
                workers.append(start())
            _attend(workers, study, start, progress)
        except KeyboardInterrupt:
            # The search ends, with what was found.
            if not _has_found(study):
                raise
        finally:
            _stop(workers)


def _has_found(study: optuna.Study) -> bool:
    return bool(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _attend(
    workers: list[subprocess.Popen],
    study: optuna.Study,
    start: Callable[[], subprocess.Popen],
    progress: Progress,
) -> None:
    """Wait for the end of all workers, and replace those that have not come to it."""
    n_replaced, n_finished = 0, 0
    while workers:
        time.sleep(POLL_SECONDS)
        progress.update()
        died = [worker for worker in workers if worker.poll() not in (None, 0)]
        workers[:] = [worker for worker in workers if worker.poll() is None]
        if not died:
            continue
        n_before, n_finished = n_finished, len(finished_trials(study))
        if n_finished > n_before:
            n_replaced = 0
        mend(study, {})
        for worker in died:
            _logger.warning("a worker ended with status %s", worker.returncode)
            if is_hopeless(study):
                # Those that are left find it out after their own trials.
                continue
            if n_replaced < MAX_REPLACEMENTS:
                n_replaced += 1
                workers.append(start())
            else:
                _logger.error("workers end before they finish a trial: no more are started")


def _stop(workers: list[subprocess.Popen]) -> None:
    """Ask workers to give up their trials, and end those that do not."""
    try:
        for worker in workers:
            worker.terminate()
        deadline = time.monotonic() + SECONDS_TO_STOP
        while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
