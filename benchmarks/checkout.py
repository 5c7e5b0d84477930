"""This checkout as `warmstack`, in an interpreter that has not installed it: the host's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def name_checkout() -> None:
    """`import warmstack.x` finds this checkout from now on, whatever its folder is called."""
    spec = importlib.util.spec_from_file_location(
        "warmstack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None
    sys.modules["warmstack"] = importlib.util.module_from_spec(spec)
