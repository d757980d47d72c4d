"""Linters of files that are not Python, installed with the suite's own packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest


def complaints(linter: str, file: Path, *, package: str) -> str:
    """What ``linter`` says of the file: nothing of a good one. Skips the test where the linter is not installed.

    It is looked for beside this interpreter first: an environment need not be active, and so not on PATH, to be the one that runs.
    """
    found = shutil.which(linter, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"{linter} is not installed (pip install {package})")
    done = subprocess.run([found, str(file)], capture_output=True, text=True, timeout=240, check=False)
    return done.stdout + done.stderr + ("" if done.returncode == 0 else f"exit code {done.returncode}")
