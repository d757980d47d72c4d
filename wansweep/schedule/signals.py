"""Signals to a driver: finish what runs, or stop now. Whatever is asked, the report is still made and nothing recorded is lost.

SIGINT is a user's: the first lets running trials finish, however long they take, the second stops. SIGTERM is a batch system's, which kills
some time after it (Slurm by default after 30 s, Kubernetes likewise): running trials may finish for `Cluster.grace_s`, then they are stopped.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | None


def stop(number: int, frame: FrameType | None) -> None:
    """Stop now.

    Raises:
        KeyboardInterrupt: Always.
    """
    raise KeyboardInterrupt


@contextmanager
def terminable() -> Iterator[None]:
    """While the ``with`` lasts, a SIGTERM unwinds as a SIGINT does: a cluster that was started is stopped, and no file is half written."""
    with _handling(signal.SIGTERM, stop):
        yield


@contextmanager
def ours() -> Iterator[None]:
    """SIGTERM is handled after the ``with`` as it was before, whatever Ray sets when it is initialised; its exit becomes an interrupt."""
    before: Handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def interruptible(finish: Callable[[], None], interrupted: threading.Event, *, grace_s: float) -> Iterator[None]:
    """While the ``with`` lasts, a first SIGINT or SIGTERM calls ``finish``; another SIGINT, or the end of a SIGTERM's grace, stops now.

    Args:
        finish: Start no more.
        interrupted: Set by the first.
        grace_s: After a SIGTERM.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            if not signal.getitimer(signal.ITIMER_REAL)[0]:
                signal.setitimer(signal.ITIMER_REAL, max(grace_s, 0.001))  # 0 would switch the timer off
        elif interrupted.is_set():
            stop(number, frame)
        interrupted.set()
        finish()

    with _handling(signal.SIGALRM, stop), _handling(signal.SIGTERM, on_signal), _handling(signal.SIGINT, on_signal):
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def _handling(number: signal.Signals, handler: Handler) -> Iterator[None]:
    before: Handler = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
