"""The fingerprint of a node and a run: what must be equal before two results may be compared.

It may be published with a report, so it holds no host name, no user's folder and no secret. No torch: versions come from the
installed packages' metadata, and torch's names its CUDA (``2.13.0+cu130``).
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pydantic import TypeAdapter

import wansweep
from wansweep.privacy import HIDDEN, SECRET_NAME, public
from wansweep.telemetry import nvml
from wansweep.telemetry.limits import HostLimits, host_limits
from wansweep.telemetry.nvml import Driver, Gpu
from wansweep.telemetry.samples import Missing

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "ray", "polars", "hydra-core", "safetensors", "nvidia-ml-py")
GIT_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Git:
    """The checkout that a run was started from.

    Attributes:
        commit: 40 hex digits.
        dirty: Whether tracked files differ from it.
    """

    commit: str
    dirty: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """What a run ran on and with.

    Attributes:
        gpus: Every GPU of the node, in PCI order.
        nvml: Null when NVML answered, else why ``gpus`` is empty.
        driver: Versions of the driver; null without NVML.
        packages: Name to version; null for one that is not installed.
        python: ``3.11.9``.
        system: Kernel's name and release.
        distribution: As its os-release has it; null when it has none.
        cpu: Model, as the kernel has it.
        limits: Cores and memory, of the machine and of this process; null for an imported run.
        git: Of the current directory; null when that is no checkout.
        command: Arguments of the process, secrets hidden and home folders as ``~``.
        imported: Name of the report that the run was imported from; what that does not say is null or empty here.
    """

    gpus: tuple[Gpu, ...]
    nvml: Missing | None
    driver: Driver | None
    packages: dict[str, str | None]
    python: str
    system: str
    distribution: str | None
    cpu: str
    limits: HostLimits | None
    git: Git | None
    command: tuple[str, ...]
    imported: str | None = None


ENVIRONMENT = TypeAdapter(Environment)


def environment() -> Environment:
    """The fingerprint of this node and process, in about 0.1 s."""
    with nvml.library() as failed:
        found = [] if failed else [nvml.gpu(uuid) for uuid in nvml.uuids()]
        driver = None if failed else nvml.driver()
    return Environment(
        gpus=tuple(gpu for gpu in found if isinstance(gpu, Gpu)),
        nvml=failed,
        driver=driver,
        packages={"wansweep": wansweep.__version__, **{name: _version(name) for name in PACKAGES}},
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}",
        distribution=_distribution(),
        cpu=_cpu(),
        limits=host_limits(),
        git=git_state(Path.cwd()),
        command=public_command(sys.argv),
    )


def public_command(arguments: Sequence[str]) -> tuple[str, ...]:
    """The command as it may be published: the program by its file name alone, no home folder, no secret."""
    if not arguments:
        return ()
    program = Path(arguments[0])
    shown = [f"python -m {program.parent.name}" if program.name == "__main__.py" else program.name]
    hide_next = False
    for argument in arguments[1:]:
        name, equals, _ = argument.partition("=")
        secret = bool(SECRET_NAME.search(name))
        if hide_next and not argument.startswith("-"):
            shown.append(HIDDEN)
        elif secret and equals:
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(public(argument))
        hide_next = secret and not equals and argument.startswith("-")
    return tuple(shown)


def git_state(folder: Path) -> Git | None:
    """Commit and dirty flag of the checkout around ``folder``; null when there is none, or no git."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changes is None else Git(commit=commit, dirty=bool(changes))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # status would else write the index
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _cpu() -> str:
    """x86 calls it "model name"; other kernels have no such line."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()
