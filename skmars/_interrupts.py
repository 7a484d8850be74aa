"""Ctrl-C told from the KeyboardInterrupt by which a skorch callback ends the training."""

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["noting_interrupts"]


@contextlib.contextmanager
def noting_interrupts() -> Iterator[threading.Event]:
    """Note Ctrl-C, besides what happens at it anyway.

    Yields
    ------
    interrupted : Event
        Set by Ctrl-C; never in threads, as only the main one hears signals.
    """
    interrupted = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield interrupted
        return

    def note(number, frame):
        interrupted.set()
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
