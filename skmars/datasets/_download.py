"""One file from the web: gone on with where it broke off, verified, and whole under its name."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Seconds without a byte until a connection counts as broken.
_TIMEOUT = 30.0
_LONGEST_WAIT = 60.0
_BLOCK = 1 << 16


class TransferError(OSError):
    """What the web did wrong, and what another attempt may put right; disks raise OSError."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of which content and address are known.

    Parameters
    ----------
    url : str
        Where it is, by http or https.
    path : Path
        Where it shall be. The first part of it is kept as `<path>.part` until it is complete.
    n_bytes : int
        Its size.
    sha256 : str
        Its hash, in lower-case hexadecimal digits.
    """

    url: str
    path: Path
    n_bytes: int
    sha256: str

    @property
    def part(self) -> Path:
        """The path of what is not complete."""
        return self.path.with_name(self.path.name + ".part")

    def is_whole(self) -> bool:
        """Whether the file is there, byte for byte."""
        try:
            return self.path.stat().st_size == self.n_bytes and _sha256(self.path) == self.sha256
        except FileNotFoundError:
            return False

    def fetch(self, *, n_retries: int, delay: float) -> None:
        """Download the file unless it is there.

        The processes that share the folder download one after another, so that the second one
        finds what the first has fetched. A process that dies releases its turn.

        Parameters
        ----------
        n_retries : int
            Attempts after the first one.
        delay : float
            Seconds before the second attempt; they double with each further one.

        Raises
        ------
        OSError
            If no attempt gave the whole file, or it cannot be written. What has come is kept,
            and the next call goes on from there, unless it had the wrong hash.
        """
        # Imported late, since most who import the package download nothing.
        import filelock

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.path.parent / ".lock"):
                if not self.is_whole():
                    self._fetch(n_retries, delay)
                    os.replace(self.part, self.path)
        except TransferError:
            raise
        except OSError as error:
            message = (
                f"{error.strerror}, while {self.path.name} was downloaded to {self.path.parent}; "
                "what has come is kept, and another call goes on from there"
            )
            # With an errno, the class of OSError is chosen by it.
            raise OSError(error.errno, message) from error

    def _fetch(self, n_retries: int, delay: float) -> None:
        for attempt in range(n_retries + 1):
            try:
                _transfer(self)
                return
            except TransferError as error:
                if attempt == n_retries:
                    raise TransferError(
                        f"{self.url} could not be downloaded, in {n_retries + 1} attempt(s): "
                        f"{error}. What is right of it is kept for another call"
                    ) from error
            time.sleep(min(delay * 2.0 ** min(attempt, 60), _LONGEST_WAIT))


def _transfer(file: RemoteFile) -> None:
    """Make the partial file a whole one, in one attempt."""
    begun = _size(file.part)
    if begun < file.n_bytes:
        _append(file, begun)
    if (size := _size(file.part)) < file.n_bytes:
        raise TransferError(f"the connection ended after {size} of {file.n_bytes} bytes")
    if (found := _sha256(file.part)) != file.sha256:
        file.part.unlink()
        raise TransferError(f"its SHA-256 is {found}, expected {file.sha256}")


def _append(file: RemoteFile, begun: int) -> None:
    """Ask for what comes after the first `begun` bytes, and add what comes of it."""
    request = urllib.request.Request(file.url, headers={"User-Agent": "skmars"})
    if begun:
        request.add_header("Range", f"bytes={begun}-")
    with _open(request, file) as response:
        if response.status == 206:
            _, _, span = response.headers.get("Content-Range", "").partition(" ")
            if span.partition("-")[0] != str(begun):
                file.part.unlink()
                raise TransferError("the server sent another range than the one asked for")
        else:
            # A server that knows no ranges sends the whole file.
            begun = 0
        expected = file.n_bytes - begun
        # A login page in place of the file does not overwrite what is right.
        if response.length not in (None, expected):
            raise TransferError(f"the server has {response.length} bytes of {expected} expected")
        with open(file.part, "ab" if begun else "wb") as output:
            for block in _read(response, expected):
                output.write(block)


def _open(request: urllib.request.Request, file: RemoteFile) -> Any:
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            # The server's file ends before our part of it: not the same file.
            file.part.unlink(missing_ok=True)
        raise TransferError(f"HTTP status {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise TransferError(str(error) or repr(error)) from error


def _read(response: Any, n_bytes: int) -> Iterator[bytes]:
    """Blocks of at most `n_bytes` bytes together, however many the server would send.

    What goes wrong on the way is a TransferError; what goes wrong where the blocks are written
    does not come by here.
    """
    while n_bytes:
        try:
            block = response.read(min(_BLOCK, n_bytes))
        except (OSError, http.client.HTTPException) as error:
            raise TransferError(str(error) or repr(error)) from error
        if not block:
            return
        n_bytes -= len(block)
        yield block


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
