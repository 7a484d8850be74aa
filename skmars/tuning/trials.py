"""One worker's part in a study: claim a trial, evaluate it, tell; and mend what others left."""

import contextlib
import functools
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from skmars.tuning.storages import PatientStorage, StorageGone, exclusively

__all__ = [
    "count_trials",
    "finished_trials",
    "is_hopeless",
    "is_to_be_repeated",
    "mend",
    "work",
]

# Seconds between signs of life, and after how many without one a trial is given up.
HEARTBEAT = 15.0
GRACE = 120.0
MAX_ATTEMPTS = 3
# So many of them end a search in which no trial has succeeded.
MAX_FAILURES = 10
# Between looks at trials that others have to finish.
POLL_SECONDS = 0.5

# Names of user attributes of a trial.
WORKER, BEAT, ERROR = "worker ", "heartbeat", "error"
ATTEMPT, REPEATS, RETRY, TICKET = "attempt", "repeats", "retry", "ticket"

# Signatures of the trials that this process is working on.
_running: set[str] = set()
_logger = logging.getLogger("skmars")


def work(
    study: Study,
    evaluate: Callable[[optuna.Trial], float | list[float]],
    *,
    n_trials: int | None,
    deadline: float | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Evaluate trials of a study until there are enough of them, or it is time.

    Trials that others still evaluate are waited for: if one is lost, it is this worker's turn.
    A study in which ten trials have failed, and none has done otherwise, is left as well.

    Parameters
    ----------
    study : optuna.Study
        On a `PatientStorage`.
    evaluate : callable
        Takes a trial and returns its value or values; may raise `optuna.TrialPruned`.
    n_trials : int or None
        Trials of the study in all, of all workers; None for no end.
    deadline : float or None
        Value of `time.monotonic()` after which no trial is begun.
    is_stopped : callable
        Asked before each trial, and after it: what training made of a trial that was stopped
        does not count. True ends the work.
    """
    silent: dict[int, tuple[Any, float]] = {}
    with _stoppable(study) as is_exhausted:
        while not is_stopped() and (deadline is None or time.monotonic() < deadline):
            mend(study, silent)
            with _signed() as me:
                trial = _claim(study, n_trials, me)
                if trial is not None:
                    _run(study, trial, evaluate, is_stopped)
            if is_exhausted() or (trial is not None and is_hopeless(study)):
                return
            if trial is None:
                if _is_over(study, n_trials):
                    return
                time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _stoppable(study: Study) -> Iterator[Callable[[], bool]]:
    """Let samplers with nothing left to try, or the space, end the work by `Study.stop`."""
    # As `Study.optimize` does, without which it is an error.
    study._stop_flag, study._thread_local.in_optimize_loop = False, True
    try:
        yield lambda: study._stop_flag
    finally:
        study._thread_local.in_optimize_loop = False


@contextlib.contextmanager
def _signed() -> Iterator[str]:
    """Sign a trial: where it runs, and a word that this process knows as long as it does."""
    me = f"{_machine()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    _running.add(me)
    try:
        yield me
    finally:
        _running.discard(me)


@functools.cache
def _machine() -> str:
    """Name of the scope in which numbers of processes are unique: machine, boot, container."""
    # Many machines have the same name, and containers of one number their processes anew.
    words = [socket.gethostname()]
    with contextlib.suppress(OSError):
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text()[:8])
        words.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return "/".join(words)


def _claim(study: Study, n_trials: int | None, me: str) -> optuna.Trial | None:
    """Begin a trial, unless there are enough."""
    storage = _storage_of(study)

    def begin(confirm: Callable[[], None]) -> optuna.Trial | None:
        trials = study.get_trials(deepcopy=False)
        if n_trials is not None and count_trials(trials) >= n_trials:
            return None
        _put_in_line(study, trials)
        if not _waiting(study):
            ticket = {TICKET: uuid.uuid4().hex}
            # Not by `enqueue_trial`, for which some samplers have to be given parameters.
            study.add_trial(create_trial(state=TrialState.WAITING, user_attrs=ticket))
        trial_id = _waiting(study)[0]._trial_id
        if not _take(storage, trial_id, me, confirm):
            return begin(confirm)
        # As `Study.ask` does, which would take another trial if this one were taken.
        study._thread_local.cached_all_trials = None
        return optuna.Trial(study, trial_id)

    return exclusively(storage, begin)


def _take(storage: PatientStorage, trial_id: int, me: str, confirm: Callable[[], None]) -> bool:
    """Begin a trial in line; False if another worker was faster, which only a lost lock allows."""
    try:
        # Whose trial it is has to be known before it runs: a worker can be killed any time.
        storage.set_trial_user_attr(trial_id, WORKER + me.rpartition(":")[2], me)
        confirm()
        return storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    except UpdateFinishedTrialError:
        return False


def _put_in_line(study: Study, trials: list[FrozenTrial]) -> None:
    """Let trials that were lost be repeated, as far as nobody has seen to it."""
    repeated = {trial.user_attrs.get(REPEATS) for trial in trials}
    for trial in trials:
        attempt = trial.user_attrs.get(RETRY, 0)
        if attempt and is_to_be_repeated(trial) and trial.number not in repeated:
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            attrs = {ATTEMPT: attempt, REPEATS: trial.number, TICKET: f"again {trial.number}"}
            study.enqueue_trial(params, user_attrs=attrs)


def _waiting(study: Study) -> list[FrozenTrial]:
    """Trials in line, without those that an outage has put there twice."""
    seen: set[str] = set()
    waiting = []
    for trial in study.get_trials(deepcopy=False):
        ticket = trial.user_attrs.get(TICKET)
        if trial.state == TrialState.WAITING:
            if ticket in seen:
                _end(study, trial._trial_id, "twice in line", retry=0)
            else:
                waiting.append(trial)
        if ticket is not None:
            seen.add(ticket)
    return waiting


def count_trials(trials: list[FrozenTrial]) -> int:
    """How many trials have begun, without those that were lost and are repeated as others."""
    return sum(
        trial.state != TrialState.WAITING and not is_to_be_repeated(trial) for trial in trials
    )


def is_to_be_repeated(trial: FrozenTrial) -> bool:
    """Whether a trial was lost by no fault of its own, and another takes its place."""
    return trial.state == TrialState.FAIL and RETRY in trial.user_attrs


def _is_over(study: Study, n_trials: int | None) -> bool:
    """Whether there are enough trials, and none that a worker has still to finish."""
    trials = study.get_trials(deepcopy=False)
    running = any(_is_of_a_worker(trial) for trial in trials)
    return n_trials is not None and count_trials(trials) >= n_trials and not running


def is_hopeless(study: Study) -> bool:
    """Whether many trials have failed and no other has ended: it is not their parameters."""
    ended = [trial.state for trial in finished_trials(study)]
    return len(ended) >= MAX_FAILURES and set(ended) == {TrialState.FAIL}


def finished_trials(study: Study) -> list[FrozenTrial]:
    """Trials that have ended, without those that another has repeated."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and not is_to_be_repeated(trial)
    ]


def _is_of_a_worker(trial: FrozenTrial) -> bool:
    """Whether a trial runs here; what else may run in a study is its owner's business."""
    return trial.state == TrialState.RUNNING and bool(_signatures(trial))


def _signatures(trial: FrozenTrial) -> list[str]:
    """Of those who have claimed a trial: one has it, others were too late, or fell silent."""
    return [value for name, value in trial.user_attrs.items() if name.startswith(WORKER)]


def _run(
    study: Study, trial: optuna.Trial, evaluate: Callable, is_stopped: Callable[[], bool]
) -> None:
    try:
        tell = _evaluate(trial, evaluate)
        if is_stopped():
            raise _Stopped
        tell(study)
    except UpdateFinishedTrialError:
        if is_to_be_repeated(_storage_of(study).get_trial(trial._trial_id)):
            _logger.warning("trial %d was silent for too long: it is repeated", trial.number)
    except BaseException as error:
        # Whoever cannot be told finds out that nobody works on the trial any more.
        with contextlib.suppress(Exception), _storage_of(study).impatient():
            give_up(study, trial._trial_id, "interrupted", is_attempt=False)
        if not isinstance(error, _Stopped):
            raise


class _Stopped(BaseException):
    """The search ends, though training went on as if nothing had happened."""


def _evaluate(trial: optuna.Trial, evaluate: Callable) -> Callable[[Study], object]:
    """Evaluate a trial, and return what tells the study of it."""
    try:
        with _beating(trial):
            values = evaluate(trial)
    except optuna.TrialPruned:
        return lambda study: study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
    except (StorageGone, UpdateFinishedTrialError):
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        return lambda study: _tell_error(study, trial, message)
    return lambda study: study.tell(trial, values, skip_if_finished=True)


def _tell_error(study: Study, trial: optuna.Trial, message: str) -> None:
    # The search goes on, and says what happened to whoever looks.
    trial.set_user_attr(ERROR, message)
    study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


@contextlib.contextmanager
def _beating(trial: optuna.Trial) -> Iterator[None]:
    """Give signs of life, so that other workers can tell a long trial from a lost one."""
    done = threading.Event()

    def beat() -> None:
        count = 0
        while not done.wait(HEARTBEAT):
            count += 1
            # An outage is waited for where it matters: when the trial is told.
            with contextlib.suppress(Exception):
                trial.storage.set_trial_user_attr(trial._trial_id, BEAT, count)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def mend(study: Study, silent: dict[int, tuple[Any, float]]) -> int:
    """Give up trials whose worker is gone, and put each in line to be repeated.

    Parameters
    ----------
    study : optuna.Study
    silent : dict
        Sign of life last seen of each running trial, and when; kept between calls.

    Returns
    -------
    n : int
        How many trials were given up.
    """
    n = 0
    for trial in study.get_trials(deepcopy=False):
        if _is_of_a_worker(trial) and _is_lost(trial, silent, _storage_of(study).last_outage):
            n += give_up(study, trial._trial_id, "its worker is gone")
    return n


def _is_lost(trial: FrozenTrial, silent: dict[int, tuple[Any, float]], last_outage: float) -> bool:
    if all(_is_gone(signature) for signature in _signatures(trial)):
        return True
    beat, now = trial.user_attrs.get(BEAT), time.monotonic()
    last, since = silent.get(trial.number, (None, now))
    if trial.number not in silent or beat != last:
        silent[trial.number] = (beat, now)
        return False
    # While the storage was away, nobody could give a sign.
    return now - max(since, last_outage) > GRACE


def _is_gone(signature: str) -> bool:
    """Whether a worker is known to do nothing for a trial that it has claimed."""
    machine, process, _ = signature.rsplit(":", 2)
    if machine != _machine():
        return False
    if int(process) == os.getpid():
        return signature not in _running
    return not _is_alive(int(process))


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        # There a signal would end it; heartbeats have to do.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError), open(f"/proc/{process}/stat") as file:
        # A process that has ended but was not waited for.
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return True


def give_up(study: Study, trial_id: int, reason: str, *, is_attempt: bool = True) -> bool:
    """End a running trial as failed and put its parameters in line again.

    Parameters
    ----------
    study : optuna.Study
    trial_id : int
    reason : str
        For whoever looks at the study.
    is_attempt : bool, default=True
        If not, it does not count among those that a trial has.

    Returns
    -------
    is_given_up : bool
        False if it has ended meanwhile.
    """
    storage = _storage_of(study)

    def end(confirm: Callable[[], None]) -> bool:
        trial = storage.get_trial(trial_id)
        if trial.state.is_finished():
            return False
        attempt = trial.user_attrs.get(ATTEMPT, 1)
        retry = attempt + 1 if is_attempt else attempt
        reason_now = f"{reason} (attempt {attempt})"
        if not _end(study, trial_id, reason_now, retry if retry <= MAX_ATTEMPTS else None):
            return False
        _put_in_line(study, study.get_trials(deepcopy=False))
        return True

    return exclusively(storage, end)


def _end(study: Study, trial_id: int, reason: str, retry: int | None) -> bool:
    """End a trial as failed, to be repeated as attempt `retry`; 0 for never, None if it counts."""
    storage = _storage_of(study)
    try:
        storage.set_trial_user_attr(trial_id, ERROR, reason)
        if retry is not None:
            storage.set_trial_user_attr(trial_id, RETRY, retry)
        storage.set_trial_state_values(trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:
        # Its worker was alive after all, and just in time.
        return False
    return True


def _storage_of(study: Study) -> PatientStorage:
    assert isinstance(study._storage, PatientStorage)
    return study._storage
