"""Signals, without a cluster: what the handlers do, and that they leave the process as they found it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from wansweep.schedule.signals import interruptible, ours, terminable


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def wait_s(seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        time.sleep(0.01)


def sigterm_and_wait() -> None:
    send(signal.SIGTERM)
    wait_s(5)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_and_a_second_ctrl_c_stops(first: signal.Signals) -> None:
    finished, interrupted = [], threading.Event()
    with interruptible(lambda: finished.append(True), interrupted, grace_s=60):
        send(first)
        assert (finished, interrupted.is_set()) == ([True], True)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_the_end_of_the_grace_stops_and_a_second_sigterm_does_not_lengthen_it() -> None:
    begin_s = time.monotonic()
    with interruptible(lambda: None, threading.Event(), grace_s=0.4):
        send(signal.SIGTERM)
        wait_s(0.2)
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            wait_s(5)
    assert 0.3 < time.monotonic() - begin_s < 4


def test_without_a_grace_a_sigterm_stops_at_once() -> None:
    with interruptible(lambda: None, threading.Event(), grace_s=0), pytest.raises(KeyboardInterrupt):
        sigterm_and_wait()


def test_a_sweep_that_ends_within_the_grace_is_not_stopped_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with interruptible(lambda: None, threading.Event(), grace_s=0.2):
        send(signal.SIGTERM)
    wait_s(0.4)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before


def test_a_sigterm_outside_of_the_trials_unwinds_as_a_ctrl_c() -> None:
    with terminable(), pytest.raises(KeyboardInterrupt):
        sigterm_and_wait()


def test_what_ray_sets_for_a_sigterm_is_gone_after_it_and_its_exit_is_an_interrupt() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ours():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(KeyboardInterrupt), ours():
        sys.exit(15)
