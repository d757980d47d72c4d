"""What two runs ran on, held against each other: what must be equal before their figures say anything of each other, and what is only noted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from wansweep.telemetry.environment import Environment

# Kernels, clocks and the pipeline come from these; a change of them is a change of what was measured.
MUST_BE_EQUAL = ("driver", "power_limit_w", "torch", "diffusers", "transformers", "accelerate")
NOTED = ("wansweep", "git", "python", "system", "ray", "usable_cores")


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """How two environments compare; each a line ``what: base -> head``.

    Attributes:
        differing: What must be equal and is not, by its name.
        accepted: What must be equal, is not, and was named by the user as what is compared.
        noted: What differs and may.
        unknown: What must be equal and is not known on one side.
    """

    differing: dict[str, str]
    accepted: dict[str, str]
    noted: dict[str, str]
    unknown: tuple[str, ...]


def compare(base: Environment, head: Environment, *, across: Iterable[str] = ()) -> Surroundings:
    """The differences of two environments; those in ``across`` do not stand in the way."""
    there, here = _facts(base), _facts(head)
    differ = {name: f"{there[name]} -> {here[name]}" for name in there if None not in (there[name], here[name]) and there[name] != here[name]}
    return Surroundings(
        differing={name: differ[name] for name in MUST_BE_EQUAL if name in differ and name not in across},
        accepted={name: differ[name] for name in MUST_BE_EQUAL if name in differ and name in across},
        noted={name: differ[name] for name in NOTED if name in differ},
        unknown=tuple(name for name in MUST_BE_EQUAL if (there[name] is None) != (here[name] is None)),
    )


def must_be_equal(environment: Environment) -> dict[str, str | None]:
    """What must be equal of an environment, in words; null where it does not say."""
    facts = _facts(environment)
    return {name: facts[name] for name in MUST_BE_EQUAL}


def departures(base: Environment, head: Environment, *, local: bool) -> dict[str, tuple[str, str]]:
    """What must be equal and is not, or is not known on one side, the devices too: name to both values in words.

    `compare` leaves the devices to the records, which name those of the trials; before a trial has run only the driver's machine is known.

    Args:
        base: Where the first trials ran.
        head: Where more are to run.
        local: They run on the driver's machine, whose CPU matters where it has no GPU.
    """
    there, here = (_devices(environment, local=local) | _facts(environment) for environment in (base, head))
    names = ("gpus", "cpu", *MUST_BE_EQUAL)
    return {name: (there[name] or "unknown", here[name] or "unknown") for name in names if there[name] != here[name]}


def _devices(environment: Environment, *, local: bool) -> dict[str, str | None]:
    gpus = Counter(gpu.name or "unnamed" for gpu in environment.gpus)
    return {
        "gpus": ", ".join(f"{count} x {name}" for name, count in sorted(gpus.items())) or "none",
        "cpu": environment.cpu if local and not gpus else None,
    }


def _facts(environment: Environment) -> dict[str, str | None]:
    """Every compared fact in words; null where the environment does not say."""
    limits = sorted({gpu.power_limit_w for gpu in environment.gpus if gpu.power_limit_w is not None})
    limit = ", ".join(f"{watts:g}" for watts in limits)
    said = environment.imported is None
    git = f"{environment.git.commit[:12]}{' with changes' if environment.git.dirty else ''}" if environment.git else None
    facts: dict[str, str | None] = {
        "driver": environment.driver.version if environment.driver else None,
        "power_limit_w": limit or None,
        "git": git,
        "python": environment.python if said else None,
        "system": environment.system if said else None,
        "usable_cores": f"{environment.limits.usable_cores:g}" if environment.limits else None,
    }
    return {**{name: environment.packages.get(name) for name in (*MUST_BE_EQUAL, *NOTED)}, **facts}
