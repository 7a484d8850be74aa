"""A process that works on a study.

It is started with its share of the cores, reads what to do from the folder, and ends when there
are enough trials, when it is told to by a signal, or when the process that started it is gone.
"""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import filelock
import numpy as np

if TYPE_CHECKING:
    from skmars.tuning.evaluation import Evaluation

__all__ = ["hand_over", "own_folder", "start_worker"]

JOB, IMAGES, MASKS, OWNED = "job.pkl", "X.npy", "y.npy", "owned"
PREFIX = "skmars-"

WATCH_SECONDS = 0.5
ENDED_BY_SIGNAL = 128 + signal.SIGTERM


@contextmanager
def hand_over(evaluation: "Evaluation", **job: Any) -> Iterator[Path]:
    """Write down for other processes what they have to do.

    Parameters
    ----------
    evaluation : Evaluation
        Its arrays go to files that the workers map into memory, and do not copy.
    **job
        Arguments of `_work`.

    Yields
    ------
    folder : Path
        Removed afterwards.
    """
    with own_folder() as folder:
        np.save(folder / IMAGES, evaluation.X)
        np.save(folder / MASKS, evaluation.y)
        without = replace(evaluation, X=np.empty(0), y=np.empty(0))
        # Also classes and functions of a script or a notebook, which have no module to import.
        (folder / JOB).write_bytes(cloudpickle.dumps({"evaluation": without, **job}))
        yield folder


@contextmanager
def own_folder() -> Iterator[Path]:
    """Make a temporary folder, and remove those of processes that could not remove theirs.

    Yields
    ------
    folder : Path
        Removed afterwards.
    """
    _remove_forgotten_folders()
    made = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
    # The lock ends with the process, whatever ends it.
    with made as name, filelock.FileLock(Path(name) / OWNED):
        yield Path(name)


def _remove_forgotten_folders() -> None:
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNED}"):
        with suppress(OSError, filelock.Timeout):
            # A new one may not be locked yet.
            if time.time() - lock.stat().st_mtime > 60:
                with filelock.FileLock(lock, timeout=0):
                    shutil.rmtree(lock.parent)


def start_worker(folder: Path, n_threads: int) -> subprocess.Popen:
    """Start a process that works on what `hand_over` has written.

    Parameters
    ----------
    folder : Path
    n_threads : int
        Cores that it may use.
    """
    threads = {name: str(n_threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {"GOMP_SPINCOUNT": "1000", **os.environ, **threads}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = "from skmars.tuning.worker_process import main; main()"
    # In a session of its own: Ctrl-C is for the process that started it, which passes it on.
    return subprocess.Popen(
        [sys.executable, "-c", command, str(folder), str(os.getpid())],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def main() -> None:
    """Work until there is nothing left to do."""
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    stopped = threading.Event()

    def stop(number, frame):
        # Callbacks end a training by the same exception: only Ctrl-C is told from that.
        stopped.set()
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=_end_with, args=(parent, folder), daemon=True).start()
    try:
        # A shell lets its processes in the background ignore it, and these inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, stop)
        job = pickle.loads((folder / JOB).read_bytes())
        X = np.load(folder / IMAGES, mmap_mode="r")
        y = np.load(folder / MASKS, mmap_mode="r")
        evaluation = replace(job.pop("evaluation"), X=X, y=y)
        _work(evaluation=evaluation, is_stopped=stopped.is_set, **job)
    except KeyboardInterrupt:
        stopped.set()
    except SystemExit as error:
        raise RuntimeError("a trial has asked for the end of its process") from error
    # Whoever did not ask for the end puts another worker in the place of this one.
    sys.exit(ENDED_BY_SIGNAL if stopped.is_set() else 0)


def _end_with(parent: int, folder: Path) -> None:
    """End this process at once when the one that started it is gone: nobody could stop it."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(ENDED_BY_SIGNAL)


def _work(*, evaluation, open_study, config, n_trials, deadline, is_stopped) -> None:
    from sklearn import set_config

    from skmars.tuning.storages import patiently
    from skmars.tuning.trials import work

    # Such as metadata routing, which the process that started this one may have switched on.
    set_config(**config)
    study = patiently(open_study)
    work(study, evaluation, n_trials=n_trials, deadline=deadline, is_stopped=is_stopped)
