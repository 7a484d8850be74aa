import contextlib
import os
import signal
import threading
import time
from functools import partial

import numpy as np
import optuna
import pytest
from clocks import Clock
from optuna.distributions import FloatDistribution
from optuna.samplers import RandomSampler
from sklearn import get_config
from sklearn.model_selection import KFold
from tuning_estimators import (
    Evaluate,
    Level,
    Lingers,
    check_complete,
    finished,
    forks,
    join,
    open_study,
    processes_with,
    read_log,
    search,
    wait_until,
)

from skmars import MarsSegmenter
from skmars.tuning import SegmenterSearchCV, running, studies, trials, worker_process
from skmars.tuning.evaluation import Evaluation, make_objectives
from skmars.tuning.progress import Progress
from skmars.tuning.storages import open_storage
from skmars.tuning.trials import is_to_be_repeated, mend, work
from skmars.tuning.worker_process import hand_over, own_folder, start_worker


@pytest.fixture
def url(tmp_path):
    return f"journal://{tmp_path}/study.log"


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "evaluations")


def levels(study):
    return sorted(finished(study).values())


class WaitsForAnother(Evaluate):
    """Lets no process take all trials before another one has begun."""

    def __call__(self, trial):
        level = super().__call__(trial)
        wait_until(lambda: len({process for _, process in read_log(self.log, "begun")}) > 1)
        return level


def test_seeds_follow_from_the_studys(url, log, tmp_path):
    with forks() as start:
        started = [start(search, url, WaitsForAnother(log), 8) for _ in range(3)]
        assert join(started) == [0, 0, 0]
    search(f"journal://{tmp_path}/alone.log", Evaluate(log), 8)
    alone = open_study(f"journal://{tmp_path}/alone.log")
    assert levels(open_study(url)) == levels(alone)
    assert len({worker_of(trial) for trial in open_study(url).get_trials()}) > 1


def test_processes_that_share_a_database_file_make_no_trial_too_many(log, tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    search(url, Evaluate(log, 0.02), 1)
    with forks() as start:
        started = [start(search, url, Evaluate(log, 0.02), 12) for _ in range(3)]
        assert join(started) == [0, 0, 0]
    check_complete(open_study(url), 12)


def worker_of(trial):
    (signature,) = trials._signatures(trial)
    return signature.split(":")[1]


def test_worker_killed_in_the_middle_of_a_trial(url, log):
    evaluate = Evaluate(log, 0.02, {1: "kill", 4: "kill"})
    with forks() as start:
        ends = join([start(search, url, evaluate, 8) for _ in range(3)])
    assert sorted(ends) == [-9, -9, 0]
    study = open_study(url)
    check_complete(study, 8)
    lost = [trial for trial in study.get_trials() if is_to_be_repeated(trial)]
    assert [trial.number for trial in lost] == [1, 4]
    assert all("its worker is gone" in trial.user_attrs["error"] for trial in lost)
    # Repeated as they were.
    again = [trial for trial in study.get_trials() if "repeats" in trial.user_attrs]
    by_level = {"key": lambda params: params["level"]}
    repeated = sorted([trial.params for trial in again], **by_level)
    assert repeated == sorted([trial.params for trial in lost], **by_level)
    assert len(read_log(log, "ended")) == 8


def test_all_workers_killed_and_the_search_resumed(url, log):
    evaluate = Evaluate(log, seconds=0.05)
    with forks() as start:
        started = [start(search, url, evaluate, 12) for _ in range(2)]
        wait_until(lambda: len(read_log(log, "ended")) >= 4)
        for one in started:
            os.kill(one.pid, signal.SIGKILL)
        join(started)
        before = finished(open_study(url))
        assert 3 <= len(before) < 12
        assert join([start(search, url, evaluate, 12) for _ in range(3)]) == [0, 0, 0]
    check_complete(open_study(url), 12, before)


def test_trial_that_kills_its_worker_has_three_attempts(url, log):
    evaluate = Evaluate(log, troubles=dict.fromkeys(range(20), "kill"))
    with forks() as start:
        ends = [join([start(search, url, evaluate, 1)]) for _ in range(4)]
    assert ends == [[-9], [-9], [-9], [0]]
    study = open_study(url)
    check_complete(study, 1)
    assert [trial.user_attrs["error"] for trial in study.get_trials()] == [
        f"its worker is gone (attempt {attempt})" for attempt in (1, 2, 3)
    ]
    assert not is_to_be_repeated(study.get_trials()[-1])


def test_broken_trials_are_recorded_and_not_repeated(url, log):
    search(url, Evaluate(log, troubles={0: "diverge"}), 3)
    first, *others = open_study(url).get_trials()
    assert first.state.name == "FAIL"
    assert first.user_attrs["error"] == "FloatingPointError: has diverged"
    assert [trial.state.name for trial in others] == ["COMPLETE", "COMPLETE"]


def test_worker_waits_for_the_last_trials_of_others(url, log):
    slow = Evaluate(log, seconds=1.0, troubles={0: "kill"})
    with forks() as start:
        dying = start(die_after, url, 0.6)
        wait_until(lambda: len(open_study(url).get_trials()) == 1)
        waiting = start(search, url, slow, 1)
        assert join([dying, waiting]) == [-9, 0]
    check_complete(open_study(url), 1)
    assert len(finished(open_study(url))) == 1


def die_after(url, seconds):
    def evaluate(trial):
        trial.suggest_float("level", 0.0, 200.0)
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    work(open_study(url), evaluate, n_trials=1)


def begin_elsewhere(study, beat=None):
    """A running trial of another machine."""
    study.enqueue_trial({}, user_attrs={"worker abc": "elsewhere:1:abc", "heartbeat": beat})
    return study.ask()


def test_silent_trial_of_another_machine_is_repeated(url, log, monkeypatch):
    monkeypatch.setattr(trials, "GRACE", 0.3)
    study = open_study(url)
    trial = begin_elsewhere(study)
    level = trial.suggest_float("level", 0.0, 200.0)
    search(url, Evaluate(log), 2)
    check_complete(study, 2)
    assert level in finished(study).values()
    # What comes too late is not told, and ends nobody's search.
    trials._run(study, trial, Evaluate(log), lambda: False)
    check_complete(study, 2)


def test_trial_of_another_machine_that_beats_is_waited_for(url, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(trials.time, "monotonic", clock)
    study, silent = open_study(url), {}
    trial = begin_elsewhere(study)
    for beat in range(3):
        trial.set_user_attr(trials.BEAT, beat)
        assert mend(study, silent) == 0
        clock.advance(trials.GRACE)
        assert mend(study, silent) == 0
    clock.advance(1.0)
    assert mend(study, silent) == 1


def test_trials_beat_as_long_as_they_last(url, monkeypatch):
    monkeypatch.setattr(trials, "HEARTBEAT", 0.01)
    study = open_study(url)

    def evaluate(trial):
        wait_until(lambda: study.get_trials()[0].user_attrs.get(trials.BEAT, 0) >= 3)
        return 1.0

    work(study, evaluate, n_trials=1)
    assert finished(study) == {0: 1.0}


def test_trials_of_other_programs_are_left_alone(url, log, monkeypatch):
    monkeypatch.setattr(trials, "GRACE", 0.0)
    study = open_study(url)
    theirs = study.ask()
    search(url, Evaluate(log), 3)
    study.tell(theirs, 1.0)
    assert len(finished(study)) == 3


def test_last_words_of_a_trial_that_is_given_up_at_the_same_moment(url):
    study = open_study(url)
    trial = begin_elsewhere(study)
    study.tell(trial, 1.0)
    assert not trials.give_up(study, trial._trial_id, "its worker is gone")
    assert finished(study) == {0: 1.0}


def test_enqueued_parameters_outlive_a_worker_that_is_killed_at_once(url, log):
    study = open_study(url)
    study.enqueue_trial({"level": 42.0})
    with forks() as start:
        assert join([start(search, url, kill_now, 1)]) == [-9]
    search(url, Evaluate(log), 1)
    assert list(finished(study).values()) == [42.0]


def kill_now(trial):
    os.kill(os.getpid(), signal.SIGKILL)


def search_in_the_main_thread(url, evaluate, n_trials):
    study = open_study(url)
    running.search_here(study, evaluate, n_trials, None, Progress(study, None, shown=False))


def search_until_ctrl_c(url, evaluate, n_trials):
    # With nothing found, it is for whoever has started the search.
    with pytest.raises(KeyboardInterrupt):
        search_in_the_main_thread(url, evaluate, n_trials)


class SwallowsCtrlC(Evaluate):
    """As skorch does: what was interrupted looks as if it were done."""

    def __call__(self, trial):
        with contextlib.suppress(KeyboardInterrupt):
            return super().__call__(trial)
        return 1000.0


@pytest.mark.parametrize("evaluate", [Evaluate, SwallowsCtrlC])
def test_ctrl_c_ends_the_search_and_costs_no_attempt(url, log, evaluate):
    with forks() as start:
        for n in range(1, 5):
            searching = start(search_until_ctrl_c, url, evaluate(log, seconds=20.0), 3)
            wait_until(lambda n=n: len(read_log(log, "begun")) == n)
            time.sleep(0.1)
            os.kill(searching.pid, signal.SIGINT)
            assert join([searching], 5) == [0]
    study = open_study(url)
    assert finished(study) == {}
    search(url, Evaluate(log), 3)
    assert len(finished(study)) == 3
    assert len({begun[0] for begun in read_log(log, "begun")}) == 3


def become_an_orphan(url, evaluate, n_trials):
    trials.HEARTBEAT = 0.05
    if os.fork() == 0:
        search_in_the_main_thread(url, evaluate, n_trials)
        os._exit(0)


def test_search_outlives_the_shell_that_it_was_started_in(url, log):
    with forks() as start:
        assert join([start(become_an_orphan, url, Evaluate(log, 0.3), 3)]) == [0]
        wait_until(lambda: len(finished(open_study(url))) == 3)


def test_folders_of_processes_that_were_killed_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_process.tempfile, "tempdir", str(tmp_path))
    made = tmp_path / "made"
    with forks() as start:
        process = start(hold_folder, made)
        wait_until(made.exists)
        with own_folder():
            assert len(list(tmp_path.glob("skmars-*"))) == 2
        (folder,) = tmp_path.glob("skmars-*")
        os.utime(folder / worker_process.OWNED, (0, 0))
        with own_folder():
            # Its process is alive.
            assert folder.exists()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    with own_folder() as other:
        assert list(tmp_path.glob("skmars-*")) == [other]
    assert list(tmp_path.glob("skmars-*")) == []


def hold_folder(note):
    with own_folder():
        note.touch()
        time.sleep(60)


class KillsOnce:
    """A space in which the workers of some trials are killed."""

    def __init__(self, *numbers):
        self.numbers = numbers

    def __call__(self, trial):
        level = trial.suggest_float("level", 0.0, 200.0)
        return {"level": level, "trouble": "kill" if trial.number in self.numbers else None}


@pytest.fixture
def searching(tmp_path, monkeypatch, url, log):
    """Start searches with workers; none may be left, nor any folder."""
    monkeypatch.setattr(worker_process.tempfile, "tempdir", str(tmp_path))
    X = np.zeros((6, 4, 5), dtype=np.uint8)
    y = (np.arange(6)[:, None, None] + np.zeros((4, 5), dtype=int)) % 2

    def fit(n_trials, space=None, seconds=0.0, **options):
        search = SegmenterSearchCV(
            Level(seconds=seconds, log=log),
            space or {"level": FloatDistribution(0.0, 200.0)},
            cv=2,
            n_trials=n_trials,
            study_name="levels",
            pruner=None,
            refit=False,
            random_state=0,
            **{"storage": url, "n_workers": 2, "sampler": "random", **options},
        )
        return search.fit(X, y)

    try:
        yield fit
        wait_until(lambda: not processes_with(f"{tmp_path}/skmars-"), 10)
        wait_until(lambda: not list(tmp_path.glob("skmars-*")), 5)
    finally:
        for process in processes_with(f"{tmp_path}/skmars-"):
            os.kill(process, signal.SIGKILL)


def study_of(url):

    return optuna.load_study(study_name="levels", storage=open_storage(url))


def fit_and_note(searching, log):
    # A shell lets the processes of the background ignore Ctrl-C, tests among them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fitted = searching(1000, space=KillsOnce(1), seconds=0.1)
    with open(log, "a") as file:
        file.write(f"found {len(fitted.cv_results_['params'])}\n")


def test_killed_workers_are_replaced_and_ctrl_c_returns_what_they_found(searching, url, log):
    with forks() as start:
        parent = start(fit_and_note, searching, log)
        wait_until(lambda: len({process for _, process, _ in read_log(log, "begun")}) == 3, 60)
        wait_until(lambda: len(read_log(log, "ended")) >= 6)
        os.kill(parent.pid, signal.SIGINT)
        # Workers have 20 seconds to come to an end, and the machine may be busy.
        assert join([parent], seconds=90) == [0]
    begun = read_log(log, "begun")
    assert len({process for _, process, _ in begun}) == 3
    assert {int(threads) for *_, threads in begun} == {max(1, running._n_cores() // 2)}
    ((n_found,),) = read_log(log, "found")
    study = study_of(url)
    states = [trial.state.name for trial in study.get_trials()]
    assert int(n_found) == states.count("COMPLETE") >= 1
    assert "RUNNING" not in states
    before = finished(study)
    n_trials = len(before) + 3
    searching(n_trials, space=KillsOnce(), seconds=0.1, n_workers=1)
    check_complete(study, n_trials, before)


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(searching, url, log, tmp_path):
    with forks() as start:
        parent = start(searching, 1000, seconds=0.2)
        wait_until(lambda: len(read_log(log, "ended")) >= 4, 60)
        assert len(processes_with(f"{tmp_path}/skmars-")) == 2
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: not processes_with(f"{tmp_path}/skmars-"), 10)
    before = finished(study_of(url))
    assert before
    n_trials = len(before) + 3
    searching(n_trials, seconds=0.2, n_workers=1)
    check_complete(study_of(url), n_trials, before)


@pytest.mark.slow
def test_search_with_workers_reaches_its_number_of_trials(searching, url):
    fitted = searching(6, space=KillsOnce(1, 3))
    check_complete(study_of(url), 6)
    assert list(fitted.cv_results_["state"]) == ["COMPLETE"] * 6
    assert fitted.best_score_ == max(fitted.cv_results_["mean_test_score"])


def test_sampler_of_ones_own_does_not_choose_twice(searching, url):
    for n_trials in (3, 6):
        searching(n_trials, n_workers=1, sampler=RandomSampler(seed=0))
    check_complete(study_of(url), 6)
    levels = [trial.params["level"] for trial in study_of(url).get_trials()]
    assert len(set(levels)) == 6


@pytest.mark.slow
def test_worker_that_somebody_ends_is_replaced(searching, url, log):
    def end_one():
        wait_until(lambda: len(read_log(log, "ended")) >= 4)
        process = int(read_log(log, "ended")[-1][1])
        os.kill(process, signal.SIGTERM)

    thread = threading.Thread(target=end_one)
    thread.start()
    searching(25, seconds=0.2)
    thread.join()
    check_complete(study_of(url), 25)


@pytest.mark.slow
def test_two_searches_with_workers_share_a_study(searching, url):
    with forks() as start:
        space = KillsOnce(2, 5)
        both = [start(searching, 15, space=space, seconds=0.1) for _ in range(2)]
        assert join(both, 120) == [0, 0]
    check_complete(study_of(url), 15)


def test_workers_that_cannot_begin_are_not_replaced_for_ever(searching, monkeypatch):
    monkeypatch.setattr(running, "MAX_REPLACEMENTS", 1)
    monkeypatch.setattr(
        worker_process.subprocess, "Popen", fail_to_start(worker_process.subprocess.Popen)
    )
    with pytest.raises(ValueError, match="none of 0 trials"):
        searching(2)


@pytest.mark.slow
def test_search_in_which_every_trial_kills_its_worker_is_given_up(searching, log, monkeypatch):
    # Each attempt is a process that takes seconds to start: a few have to do.
    monkeypatch.setattr(trials, "MAX_FAILURES", 2)
    monkeypatch.setattr(trials, "MAX_ATTEMPTS", 1)
    with pytest.raises(ValueError, match=r"none of \d trials was completed; .* worker is gone"):
        searching(9, space=KillsOnce(*range(30)))
    assert len(read_log(log, "begun")) < 9


def test_ctrl_c_before_a_worker_has_completed_a_trial(searching, monkeypatch):
    def press(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "_attend", press)
    with pytest.raises(KeyboardInterrupt):
        searching(2)


def fail_to_start(popen):
    def start(command, **options):
        return popen([command[0], "-c", "raise SystemExit(3)", *command[3:]], **options)

    return start


@pytest.mark.slow
def test_workers_without_a_storage(searching, tmp_path, monkeypatch):
    # Otherwise it lives as long as this process.
    monkeypatch.setattr(studies, "_folder", lambda: tmp_path)
    fitted = searching(4, storage=None)
    assert list(fitted.cv_results_["state"]) == ["COMPLETE"] * 4


@pytest.mark.slow
def test_worker_that_is_stopped_within_a_callback_trains_no_other_fold(url, log, terrain, fast):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    segmenter = MarsSegmenter(**fast, callbacks=[Lingers(log)])
    evaluation = Evaluation(
        estimator=segmenter,
        space={"learning_rate": FloatDistribution(1e-3, 1e-2)},
        X=X,
        y=y,
        folds=list(KFold(2).split(X)),
        objectives=make_objectives(None, segmenter, np.unique(y)),
    )
    job = {"open_study": partial(open_study, url), "n_trials": 1, "deadline": None}
    with hand_over(evaluation, config=get_config(), **job) as folder:
        worker = start_worker(folder, 1)
        try:
            wait_until(lambda: read_log(log, "begun"), 60)
            worker.terminate()
            assert worker.wait(60) == worker_process.ENDED_BY_SIGNAL
        finally:
            worker.kill()
            worker.wait()
    assert len(read_log(log, "begun")) == 1
