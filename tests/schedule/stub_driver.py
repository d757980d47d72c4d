"""The program itself, with stub work in its ranks: ``python -m tests.schedule.stub_driver run +sweep=NAME ...``."""

from __future__ import annotations

import functools
import sys

from wansweep import cli
from wansweep.schedule import tuning

if __name__ == "__main__":
    tuning.run_trials = functools.partial(tuning.run_trials, work="tests.schedule.stub_trial")
    sys.exit(cli.main())
