"""Downloads ComfyUI's front ends, which the browser tests serve: the one that the host pins, and a newer one.

python tests/web/fetch_frontends.py [DIRECTORY]      (default: .cache/frontends in the checkout)
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

VERSIONS = ("1.49.6", "1.58.1")
DEFAULT_DIRECTORY = Path(__file__).resolve().parents[2] / ".cache" / "frontends"

_STATIC = "comfyui_frontend_package/static/"


def static_folder(directory: Path, version: str) -> Path:
    """Where the static files of `version` are, or will be."""
    return directory / version / _STATIC


def fetch(directory: Path, version: str) -> None:
    """Unpacks `version` below `directory`; does nothing when it is already there."""
    if (static_folder(directory, version) / "index.html").is_file():
        return
    target = directory / version
    target.mkdir(parents=True, exist_ok=True)
    requirement = f"comfyui-frontend-package=={version}"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(target), requirement],
        check=True,
    )
    for wheel in target.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target, [name for name in archive.namelist() if _is_served(name)])
        wheel.unlink()


def _is_served(name: str) -> bool:
    return name.startswith(_STATIC) and not name.endswith(".map")


def main() -> None:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ".gitignore").write_text("*\n", "utf-8")
    for version in VERSIONS:
        fetch(directory, version)


if __name__ == "__main__":
    main()
