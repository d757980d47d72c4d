"""``python -m wansweep``."""

import sys

from wansweep.cli import main

sys.exit(main())
