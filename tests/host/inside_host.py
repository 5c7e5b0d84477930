"""Runs inside the host's Python, with ComfyUI imported and this checkout as the package `warmstack`.

    python inside_host.py CHECKS_MODULE BASE_DIRECTORY

Calls `prepare(base)` of the module, then every `check_*(base)`, and writes one JSON object: name -> "" or the
traceback.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def import_package() -> None:
    """This checkout as `warmstack`, whatever its folder is called and wherever the host's own names point."""
    spec = importlib.util.spec_from_file_location(
        "warmstack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["warmstack"] = module
    spec.loader.exec_module(module)


def import_host(base: Path) -> None:
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    sys.argv = ["main.py", "--cpu", "--base-directory", str(base), "--disable-api-nodes"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.sd


def main(module_name: str, base: str) -> None:
    sys.path[0] = str(Path(__file__).parent)
    checks_at = sys.path[0]
    import_host(Path(base))
    import_package()
    sys.path.append(checks_at)
    sys.path.append(str(ROOT / "benchmarks"))
    module = importlib.import_module(module_name)
    module.prepare(Path(base))
    results = {}
    for name, check in vars(module).items():
        if name.startswith("check_"):
            try:
                check(Path(base))
                results[name] = ""
            except Exception:
                results[name] = traceback.format_exc()
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
