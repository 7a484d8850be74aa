"""A journal of studies in one file, which no crash can make unreadable."""

import os
import time
from pathlib import Path
from typing import Any

import filelock
from optuna.storages.journal import JournalFileBackend

__all__ = ["JournalFile"]

# Of each record.
FIRST_BYTES = b'{"op_code":'


class JournalFile(JournalFileBackend):
    """A journal of one study or many, in one file, that a crash cannot make unreadable.

    A process that is killed while it writes, or a disk that is full, leaves half a line. It was
    never acknowledged, and is cut off before the next line is written. The lock is one of the
    operating system, which ends with the process that holds it.

    Parameters
    ----------
    path : str
        The file; made if there is none, in a folder that exists.

    Raises
    ------
    ValueError
        If there is no such folder, or the file is no journal.
    """

    def __init__(self, path: str):
        if not Path(path).parent.is_dir():
            raise ValueError(f"there is no folder {Path(path).parent} for the journal {path}")
        if not _may_be_journal(path):
            # What another file ends with would be cut off like half a line.
            raise ValueError(f"{path} is not a journal of studies")
        # Not the name of Optuna's own locks: its dashboard would take this one for forgotten.
        super().__init__(path, lock_obj=_SystemLock(path + ".writes"))  # type: ignore[arg-type]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records; either all of them, or none and an error."""
        with self._lock.lock:  # type: ignore[attr-defined]
            length = _whole_lines(self._file_path)
            if length != os.path.getsize(self._file_path):
                # Unless a program with another lock is writing it just now.
                time.sleep(0.1)
                length = _whole_lines(self._file_path)
                os.truncate(self._file_path, length)
            try:
                super().append_logs(logs)
            except OSError:
                os.truncate(self._file_path, length)
                raise

    def __getstate__(self):
        return {"path": self._file_path}

    def __setstate__(self, state):
        self.__init__(state["path"])  # type: ignore[misc]


class _SystemLock:
    """A lock in the form that Optuna asks for."""

    def __init__(self, path: str):
        self.lock = filelock.FileLock(path)

    def acquire(self) -> bool:
        self.lock.acquire()
        return True

    def release(self) -> None:
        self.lock.release()


def _may_be_journal(path: str) -> bool:
    """Whether a file is missing, empty, or begins as journals do, be it with half a line."""
    if not os.path.exists(path):
        return True
    with open(path, "rb") as file:
        start = file.read(len(FIRST_BYTES))
    return FIRST_BYTES.startswith(start)


def _whole_lines(path: str) -> int:
    """Bytes of a file up to the end of its last whole line."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        step = 4096
        while end > 0:
            start = max(end - step, 0)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0
