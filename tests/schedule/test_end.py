"""Which of several failures is the one that explains the rest."""

from __future__ import annotations

from wansweep.record import Outcome
from wansweep.schedule.end import culprit
from wansweep.trial.task import Ending


def failed(rank: int, reason: str, outcome: Outcome = Outcome.CRASH) -> Ending:
    return Ending(rank=rank, outcome=outcome, reason=reason, resolved=None)


PEER = failed(0, "RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:9999")


def test_an_oom_explains_the_broken_collective_of_the_others() -> None:
    assert culprit([PEER, failed(1, "CUDA out of memory", Outcome.OOM)], died=()).rank == 1


def test_a_process_that_died_explains_the_broken_collective_of_the_others() -> None:
    assert culprit([PEER, failed(1, "its process died")], died={1}).rank == 1


def test_an_error_of_a_ranks_own_explains_the_broken_collective_of_the_others() -> None:
    assert culprit([PEER, failed(3, "ValueError: no")], died=()).rank == 3


def test_of_equals_the_first_rank_is_named() -> None:
    assert culprit([failed(2, "ValueError: no"), failed(1, "ValueError: no")], died=()).rank == 1
