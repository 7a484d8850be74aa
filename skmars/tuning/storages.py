"""Where studies are kept, such that nothing that was finished can be lost.

A study lives in memory, in a journal file, or in a database. All of them are reached through a
`PatientStorage`, which waits for a database that is gone, or a disk that is full, to come back.
"""

import abc
import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import unquote

import filelock
import sqlalchemy
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from skmars.tuning.journals import JournalFile

__all__ = [
    "PatientStorage",
    "StorageGone",
    "StorageLike",
    "exclusively",
    "open_storage",
    "patiently",
]

T = TypeVar("T")
StorageLike = str | BaseStorage | None

# Seconds to wait for a storage that does not answer, before the search gives up.
PATIENCE = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0

# What a file may answer for a while: no space, too large, a server that is away.
OUTAGES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}

# The last follows on the first where Optuna tries something else in the same transaction.
LOST_CONNECTIONS = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.PendingRollbackError,
)

# Identifies the lock of skmars among those of a database; and after how long the server takes it
# from a machine that does not say anything any more.
ADVISORY_LOCK = 0x736B6D617273
LOCK_TIMEOUT = "60s"

_in_memory = threading.RLock()
_logger = logging.getLogger("skmars")


class StorageGone(ConnectionError):
    """The storage of a study has not answered for longer than anybody wants to wait."""


def open_storage(
    storage: StorageLike, *, n_workers: int = 1, patience: float | None = None
) -> "PatientStorage":
    """Open what keeps a study, as searches do, for Optuna's own functions.

    Parameters
    ----------
    storage : str, optuna storage or None
        None for memory, `journal:///path/to/study.log` for a file, or the URL of a database
        such as `postgresql+psycopg://user@host/name`.
    n_workers : int, default=1
        How many processes are going to use it.
    patience : float or None, default=None
        Seconds to wait for a storage that fails. None is 600, or for a storage that was opened by
        this function what was said then.

    Returns
    -------
    storage : PatientStorage
        An Optuna storage.

    Raises
    ------
    ValueError
        If the URL is of no kind that is known, or the storage cannot serve several workers.
    ConnectionError
        If the database cannot be reached.
    ImportError
        If its driver is missing.

    Examples
    --------
    >>> import optuna
    >>> from skmars.tuning import open_storage
    >>> study = optuna.create_study(storage=open_storage(None))
    >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    >>> len(study.trials)
    2
    """
    if isinstance(storage, PatientStorage):
        patience = storage.patience if patience is None else patience
        storage = storage.inner
    if isinstance(storage, str):
        _check_url(storage, n_workers)
        storage = _open_url(storage)
    if n_workers > 1:
        _check_for_workers(storage, n_workers)
    return PatientStorage(get_storage(storage), PATIENCE if patience is None else patience)


URLS = "journal:///path/to/study.log or postgresql+psycopg://user@host/name"
NO_SQLITE = (
    "n_workers={} processes cannot share a SQLite file: it locks as a whole for each write, and "
    "trials fail when they wait too long for each other; use journal:///path/to/study.log on one "
    "machine, or PostgreSQL"
)


def _check_url(url: str, n_workers: int) -> None:
    if n_workers > 1 and url.startswith("sqlite"):
        # Before a file is made.
        raise ValueError(NO_SQLITE.format(n_workers))
    # Errors do not repeat what may hold a password.
    if "://" not in url:
        raise ValueError(f"storage must be a URL such as {URLS}, got one without ://")


def _check_for_workers(storage: BaseStorage | None, n_workers: int) -> None:
    if storage is None or isinstance(storage, InMemoryStorage):
        raise ValueError(
            f"n_workers={n_workers} processes cannot share a study in memory: give a storage"
        )
    dialect = getattr(_engine_of(storage), "dialect", None)
    if dialect is not None and dialect.name == "sqlite":
        raise ValueError(NO_SQLITE.format(n_workers))
    if _claim_file(storage) is None and (dialect is None or dialect.name != "postgresql"):
        raise ValueError(
            f"n_workers={n_workers} processes cannot share {storage!r}, which they have no common "
            "lock for; use a journal file or PostgreSQL"
        )


def _open_url(url: str) -> BaseStorage:
    scheme, _, path = url.partition("://")
    if scheme == "journal":
        if not path.startswith("/"):
            raise ValueError(f"journal URLs have three slashes, journal:///path; got {url!r}")
        return JournalStorage(JournalFile(unquote(path)))
    try:
        return _open_database(url)
    except sqlalchemy.exc.OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise ConnectionError(f"cannot open the storage {scheme}: {reason}") from error
    except sqlalchemy.exc.ArgumentError as error:
        raise ValueError(f"cannot open the storage {scheme}: {error}") from error


def _open_database(url: str) -> RDBStorage:
    # A connection that the database has dropped meanwhile is noticed, and made anew.
    options = {"pool_pre_ping": True}
    if _dialect_of(url) != "postgresql":
        return RDBStorage(url, engine_kwargs=options)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    # Two that make the tables at the same time fail both.
    with _advisory_lock(engine):
        return RDBStorage(url, engine_kwargs=options)


def _dialect_of(url: str) -> str:
    try:
        parsed = sqlalchemy.make_url(url)
        parsed.get_dialect()
    except (sqlalchemy.exc.ArgumentError, ValueError):
        scheme = url.partition("://")[0]
        raise ValueError(
            f"storage must be a URL such as {URLS}, got one that begins with {scheme}:// and "
            "cannot be read; in a password @ is %40, : is %3A"
        ) from None
    return parsed.get_backend_name()


def patiently(
    function: Callable[[], T],
    patience: float = PATIENCE,
    on_outage: Callable[[], None] = lambda: None,
) -> T:
    """Call until it succeeds, while the storage is out of reach and there is patience.

    Parameters
    ----------
    function : callable
        Without arguments.
    patience : float, default=600
        Seconds; with 0 an outage is raised as it is.
    on_outage : callable
        Called whenever the storage has failed.

    Returns
    -------
    result : object
        Of the function.

    Raises
    ------
    StorageGone
        If patience has run out.
    """
    deadline = time.monotonic() + patience
    pause = FIRST_PAUSE
    while True:
        try:
            return function()
        except Exception as error:
            if not _is_outage(error):
                raise
            on_outage()
            if patience == 0:
                raise
            if time.monotonic() + pause > deadline:
                raise StorageGone(f"no answer from the study's storage: {error}") from error
            _logger.warning("the study's storage does not answer (%s); trying again", error)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _is_outage(error: Exception) -> bool:
    """Whether an error may be over by itself: a lost connection, or no space left."""
    if isinstance(error, StorageGone):
        return False
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError) or error.errno in OUTAGES
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, LOST_CONNECTIONS):
        return True
    return isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.connection_invalidated


# Without a type, since its operations are made below, which a type checker cannot follow.
_Storage: Any = BaseStorage


class PatientStorage(_Storage):
    """A storage whose every operation is repeated while the one behind it is out of reach.

    Parameters
    ----------
    inner : optuna storage
        The one behind it.
    patience : float, default=600
        Seconds until an error is raised after all.

    Attributes
    ----------
    last_outage : float
        When, by `time.monotonic()`, the storage has failed last; at first minus infinity.
    """

    def __init__(self, inner: BaseStorage, patience: float = PATIENCE):
        self.inner = inner
        self.patience = patience
        self.last_outage = float("-inf")
        self._thread = threading.local()

    @contextlib.contextmanager
    def impatient(self) -> Iterator[None]:
        """Let this thread's operations raise what happens, at once."""
        before = self._is_impatient()
        self._thread.is_impatient = True
        try:
            yield
        finally:
            self._thread.is_impatient = before

    def repeat(self, function: Callable[[], T]) -> T:
        """Call a function, with the patience of this thread."""
        patience = 0.0 if self._is_impatient() else self.patience
        return patiently(function, patience, self._note_outage)

    def _is_impatient(self) -> bool:
        return getattr(self._thread, "is_impatient", False)

    def _note_outage(self) -> None:
        self.last_outage = time.monotonic()

    def __getstate__(self):
        return {"inner": self.inner, "patience": self.patience}

    def __setstate__(self, state):
        self.__init__(**state)  # type: ignore[misc]


def _make_operation(name: str) -> Callable:
    def operation(self, *args, **kwargs):
        return self.repeat(lambda: getattr(self.inner, name)(*args, **kwargs))

    operation.__name__ = name
    operation.__doc__ = getattr(BaseStorage, name).__doc__
    return operation


for _name in [name for name in vars(BaseStorage) if not name.startswith("_")]:
    setattr(PatientStorage, _name, _make_operation(_name))
abc.update_abstractmethods(PatientStorage)


def exclusively(storage: PatientStorage, step: Callable[[Callable[[], None]], T]) -> T:
    """Call a function while no other worker does, those of other machines included.

    After an outage it is called again from its beginning, since the lock of a database is lost
    with the connection, and others may have changed the study: it has to read anew.

    Parameters
    ----------
    storage : PatientStorage
        Workers that use the same wait for each other.
    step : callable
        Takes a function that raises if the lock is lost; to be called right before what only
        one worker may do.

    Returns
    -------
    result : object
        Of the step.
    """

    def once() -> T:
        with storage.impatient(), _lock(storage.inner) as confirm:
            return step(confirm)

    return storage.repeat(once)


@contextlib.contextmanager
def _lock(inner: BaseStorage) -> Iterator[Callable[[], None]]:
    file, engine = _claim_file(inner), _engine_of(inner)
    if file is not None:
        with filelock.FileLock(file):
            yield lambda: None
    elif engine is not None and engine.dialect.name == "postgresql":
        with _advisory_lock(engine) as confirm:
            yield confirm
    else:
        with _in_memory:
            yield lambda: None


def _claim_file(inner: BaseStorage) -> str | None:
    backend = getattr(inner, "_backend", None)
    if isinstance(inner, JournalStorage) and isinstance(backend, JournalFileBackend):
        return backend._file_path + ".claims"
    engine = _engine_of(inner)
    if engine is not None and engine.dialect.name == "sqlite":
        file = engine.url.database
        return None if file in (None, "", ":memory:") else os.path.abspath(file) + ".claims"
    return None


def _engine_of(inner: BaseStorage) -> Any:
    """Of a database, also behind Optuna's cache."""
    return getattr(getattr(inner, "_backend", inner), "engine", None)


@contextlib.contextmanager
def _advisory_lock(engine: sqlalchemy.Engine) -> Iterator[Callable[[], None]]:
    # The lock of a transaction, which ends with it, however that comes about.
    connection = engine.connect()
    try:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
        timeout = f"SET LOCAL idle_in_transaction_session_timeout = '{LOCK_TIMEOUT}'"
        connection.exec_driver_sql(timeout)

        def confirm() -> None:
            connection.exec_driver_sql("SELECT 1")

        yield confirm
    finally:
        # With the connection the lock is lost, too: what was done under it remains done.
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
            connection.close()
