"""`python -m warmstack.worker` is the command `warmstack`."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
