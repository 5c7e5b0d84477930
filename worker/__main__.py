"""The command `warmstack`, and `python -m warmstack.worker`: says in one line which part of the install is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status; 2 where what the command works with is not installed: it comes with an extra."""
    try:
        from .cli import main as command

        return command(argv)
    except ModuleNotFoundError as missing:
        cure = 'pip install "comfyui-warmstack[diffusers]"'
        sys.stderr.write(f"warmstack needs {missing.name}, which is not installed; {cure} brings it\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
