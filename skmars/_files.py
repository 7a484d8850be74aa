"""Files that are either whole or as they were before."""

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["check_writable", "replacing"]


def check_writable(folder: str | os.PathLike) -> None:
    """Raise a ValueError if no file can be made in a folder."""
    try:
        with tempfile.TemporaryFile(dir=os.fspath(folder)):
            pass
    except OSError as error:
        raise ValueError(f"cannot write to {os.fspath(folder)}: {error.strerror}") from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike, mode: str = "wb", **kwargs: Any) -> Iterator[IO]:
    """Write a file that takes the place of `path` when it is complete.

    Parameters
    ----------
    path : path-like
        An existing file is kept until then, and kept if anything is raised; a symbolic link stays
        one.
    mode : str, default="wb"
        As in `open`.
    **kwargs
        As in `open`.

    Yields
    ------
    file : file object
        To write to.
    """
    path = Path(os.path.realpath(path))
    # In the same folder, since only within a file system a rename replaces a file in one step.
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(unfinished, mode, **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            os.chmod(unfinished, stat.S_IMODE(path.stat().st_mode))
        os.replace(unfinished, path)
    except OSError as error:
        if error.filename == os.fspath(unfinished):
            # The name that was asked for.
            error.filename = os.fspath(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
