"""What lies in the output folder of a run: pictures of an earlier one, which go, and files of others, which stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

REPORT = "report.json"
SHEET = "contact-sheet.png"
_SUFFIX = ".png"


class _Request(BaseModel):
    image: str = ""


class _Run(BaseModel):
    folder: Literal["images", "images-on-demand", "images-prefetch"]
    requests: list[_Request]


class _Report(BaseModel):
    runs: list[_Run]


def clear_output(output: Path) -> None:
    """Removes the pictures that the report of an earlier run in `output` lists, and nothing else.

    Raises FileExistsError when a report or contact sheet is there that no run made.
    """
    earlier = _earlier_report(output / REPORT)
    if earlier is None:
        require_free(output / name for name in (REPORT, SHEET))
        return
    for picture in _pictures(output, earlier):
        picture.unlink(missing_ok=True)
    for run in earlier.runs:
        # Not empty, or not there.
        with suppress(OSError):
            (output / run.folder).rmdir()


def require_free(paths: Iterable[Path]) -> None:
    """Raises FileExistsError for the first of `paths` that is there."""
    for path in paths:
        if path.exists():
            raise FileExistsError(f"{path} is there and no earlier run made it; move it, or choose another --output")


def _earlier_report(path: Path) -> _Report | None:
    try:
        return _Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _pictures(output: Path, report: _Report) -> Iterator[Path]:
    """A report may have been edited: only plain names of pictures count."""
    for run in report.runs:
        for name in {request.image for request in run.requests}:
            if name.endswith(_SUFFIX) and Path(name).name == name:
                yield output / run.folder / name
