"""What torch sees of this machine and which levers would run here, asked of a process of its own that imports no torch itself.

The trying is `trying.py`. A kernel that ends its process, or hangs it, is an answer too: the others are asked again without it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

import wansweep


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A GPU as torch sees it.

    Attributes:
        uuid: As NVML writes it.
        name: As torch writes it.
        total_bytes: What CUDA gives out at most.
        capability: ``9.0``.
        refusal: Why a first kernel did not run on it; empty when it did.
    """

    uuid: str
    name: str
    total_bytes: int
    capability: str
    refusal: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Torch:
    """torch on this machine.

    Attributes:
        version: With its build, as ``2.13.0+cu130``.
        cuda: CUDA it was built for; null for a CPU build.
        devices: GPUs in PCI order, as far as CUDA_VISIBLE_DEVICES lets them be seen.
        architectures: GPUs it was compiled for, as ``sm_90``.
        refusal: Why CUDA cannot be used, in torch's words; empty when it can.
    """

    version: str
    cuda: str | None
    devices: tuple[Device, ...]
    architectures: tuple[str, ...]
    refusal: str = ""
    said: Literal["torch"] = "torch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trying:
    """A lever is about to be tried."""

    lever: str
    said: Literal["trying"] = "trying"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ability:
    """Whether a lever would run here.

    Attributes:
        lever: ``attention=flash``.
        runs: Whether it did, in miniature.
        why: Why not, in the library's words; where it did, what slows it, or empty.
    """

    lever: str
    runs: bool
    why: str = ""
    said: Literal["ability"] = "ability"


Said = Torch | Trying | Ability
SAID: TypeAdapter[Said] = TypeAdapter(Annotated[Said, Field(discriminator="said")])


class Asking:
    """The process that tries, started at once, so that the asker can do something else meanwhile.

    Attributes:
        levers: Which to try, in order.
        command: Of the process; takes levers as arguments and prints a `Said` a line.
    """

    def __init__(self, levers: Sequence[str], *, command: Sequence[str] = (sys.executable, "-m", "wansweep.trial.trying")) -> None:
        self.levers = list(levers)
        self.command = list(command)
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by close)
        self._process = self._start(self.levers)

    def _start(self, levers: Sequence[str]) -> subprocess.Popen[str]:
        paths = [str(Path(wansweep.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        # Offline: what a kernel of the hub would be fetched for is not worth a download that nobody asked for.
        child = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        return subprocess.Popen(
            [*self.command, *levers], stdin=subprocess.DEVNULL, stdout=self._out, stderr=subprocess.PIPE, text=True, env={**os.environ, **child}
        )

    def answers(self, *, timeout_s: float) -> Iterator[Torch | Ability]:
        """What was found, as often as the process had to be started; ``timeout_s`` is for each of its lives."""
        left = self.levers
        while True:
            try:
                _, errors = self._process.communicate(timeout=timeout_s)
                end = f"its process ended with {self._process.returncode}: {_last_line(errors)}"
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
                end = f"not done after {timeout_s:g} s"
            said = self._said()
            yield from (answer for answer in said if not isinstance(answer, Trying))
            answered = {answer.lever for answer in said if isinstance(answer, Ability)}
            tried = [answer.lever for answer in said if isinstance(answer, Trying) and answer.lever not in answered]
            left = [lever for lever in left if lever not in answered]
            if not left:
                return
            for lever in tried or left:
                yield Ability(lever=lever, runs=False, why=end)
            left = [lever for lever in left if lever not in tried] if tried else []
            if not left:
                return
            self._process = self._start(left)

    def _said(self) -> list[Said]:
        self._out.seek(0)
        lines = self._out.readlines()
        self._out.seek(0)
        self._out.truncate()
        said = []
        for line in lines:
            try:
                said.append(SAID.validate_json(line))
            except ValidationError:  # a library's own chatter
                continue
        return said

    def close(self) -> None:
        """Ends the process, when it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self._out.close()


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "no message"
