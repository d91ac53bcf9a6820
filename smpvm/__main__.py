"""``python -m smpvm``."""

import sys

from smpvm.cli import main

sys.exit(main())
