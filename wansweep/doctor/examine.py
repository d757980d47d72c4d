"""The examination: every check in its turn, guarded, so that one that fails is a finding and hides no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

from wansweep.doctor import cluster, gpus, levers, measuring, memory, software, storage
from wansweep.doctor.finding import Finding, State
from wansweep.telemetry.nvml import Driver, Gpu
from wansweep.telemetry.samples import Missing
from wansweep.trial.ability import Ability, Asking, Torch


def examine(*, address: str = "local") -> Iterator[Finding]:
    """Every finding, as it is found. Torch and the levers are tried by another process meanwhile.

    Args:
        address: Of the Ray cluster to try, as ``cluster.address`` of a sweep.
    """
    with closing(Asking(levers.LEVERS)) as asking:
        found: tuple[Gpu, ...] = ()
        driver: Driver | None = None
        failed: Missing | None = None
        yield from guarded("versions", software.versions)
        yield from guarded("storage", storage.storage)
        try:
            found, driver, failed = gpus.machine()
        except Exception as error:  # noqa: BLE001  (a broken driver must not hide the rest)
            yield _failed("gpus", error)
        yield from guarded("metrics", lambda: measuring.measuring(found))
        yield from guarded("ray", lambda: cluster.ray(address, len(found)))
        said = list(asking.answers(timeout_s=levers.TIMEOUT_S))
        torch = next((answer for answer in said if isinstance(answer, Torch)), None)
        abilities = [answer for answer in said if isinstance(answer, Ability)]
        yield from guarded("gpus", lambda: gpus.gpus(found, failed, torch))
        yield from guarded("driver", lambda: gpus.driver(found, driver, torch))
        yield from guarded("memory", lambda: memory.memory(len(found), abilities))
        yield from guarded("levers", lambda: levers.levers(abilities))


def guarded(area: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The check's findings; a check that fails is one itself, after those that it had found."""
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001  (whatever breaks here is what a doctor is asked for)
        yield _failed(area, error)


def _failed(area: str, error: Exception) -> Finding:
    detail = " ".join(f"the check itself failed: {type(error).__name__}: {error}".split())[:400]
    return Finding(area=area, what="check", state=State.WARN, detail=detail, fix="report it with this line; the other checks stand")
