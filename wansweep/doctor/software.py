"""Versions against the set that was tested together (constraints.txt, in a checkout or in the wheel)."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from wansweep.doctor.finding import Finding, State

# Each is a direct dependency (pyproject.toml); without it no sweep runs.
PACKAGES = (
    "torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface-hub", "ftfy", "imageio", "ray", "polars", "hydra-core",
    "pydantic", "nvidia-ml-py", "psutil", "rich", "pyyaml",
)  # fmt: skip
# As pyproject's requires-python has it.
PYTHONS = ((3, 11), (3, 13))


def constraints() -> Path:
    """The pinned set: at the top of a checkout, or beside the code of an installed wheel."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent / "constraints.txt"
    return checkout if (package.parent / "pyproject.toml").is_file() and checkout.is_file() else package / "constraints.txt"


def tested(text: str) -> dict[str, str]:
    """Package to the version that was tested, names as PEP 503 normalises them."""
    return {_normal(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


def versions(pins: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Python, what is missing, and what differs from the tested set.

    Args:
        pins: The tested set; null reads constraints.txt.
    """
    (low, high), mine = PYTHONS, sys.version_info[:2]
    fits = low <= mine <= high
    wanted = f"wansweep runs on {low[0]}.{low[1]} to {high[0]}.{high[1]}"
    fix = "" if fits else f"make a virtual environment with python{high[0]}.{high[1]}"
    state = State.OK if fits else State.PROBLEM
    yield Finding(area="versions", what="Python", state=state, detail=f"{platform.python_version()}; {wanted}", fix=fix)
    file = constraints()
    pins = tested(file.read_text()) if pins is None else pins
    installed = {name: _installed(name) for name in PACKAGES}
    if missing := [name for name, version in installed.items() if version is None]:
        detail = f"not installed: {', '.join(missing)}"
        yield Finding(area="versions", what="packages", state=State.PROBLEM, detail=detail, fix=f"pip install -c {file} {' '.join(missing)}")
    # A build's own tag, as torch's +cu130, is no other version.
    other = {name: version for name, version in installed.items() if version and name in pins and version.partition("+")[0] != pins[name]}
    if other:
        detail = ", ".join(f"{name} {version} (tested: {pins[name]})" for name, version in other.items())
        fix = f"pip install -c {file} {' '.join(other)}"
        yield Finding(area="versions", what="tested set", state=State.WARN, detail=detail, fix=fix)
    else:
        detail = f"{len(PACKAGES) - len(missing)} packages as tested"
        yield Finding(area="versions", what="tested set", state=State.OK, detail=detail)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
