"""Files that are either whole or as they were before."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: str | os.PathLike, mode: str = "wb", **kwargs: Any) -> Iterator[IO]:
    """Write a file that takes the place of `path` when it is complete.

    Parameters
    ----------
    path : path-like
        What stands there stays until then, and for good if anything is raised.
    mode : str, default="wb"
        As in `open`.
    **kwargs
        As in `open`.

    Yields
    ------
    file : file object
        To write to.
    """
    path = Path(path)
    # In the same folder, since only within a file system a rename replaces a file in one step.
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(unfinished, mode, **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        if error.filename == os.fspath(unfinished):
            # The name that was asked for.
            error.filename = os.fspath(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
