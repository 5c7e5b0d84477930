"""What lies in the output folder of a run: pictures of an earlier one, which go, and files of others, which stay."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel

from ..lora.atomic_file import replace_text

REPORT = "report.json"
SHEET = "contact-sheet.png"
_SUFFIX = ".png"
_Folder: TypeAlias = Literal["images", "images-on-demand", "images-prefetch"]


class _Request(BaseModel):
    image: str = ""


class _Run(BaseModel):
    mode: Literal["on-demand", "prefetch"]
    requests: list[_Request]
    folder: _Folder | None = None
    """None in reports of old, which did not tell."""


class _Report(BaseModel):
    runs: list[_Run]
    interrupted: bool = False
    pictures: dict[_Folder, list[str]] = {}
    """Of a run that has not ended: what it may have painted, and what it found of the one before."""


def claim_output(output: Path, pictures: Collection[Path]) -> None:
    """Makes room for `pictures`, those of a run that begins, and leaves a report that lists them: however the run ends,
    the next one knows them. Of an earlier run's files it removes the pictures that its report lists.

    Raises FileExistsError, and has changed nothing, where one of them, the report or the contact sheet is there and no
    earlier run is known to have made it.
    """
    earlier = _earlier_report(output / REPORT)
    listed = {} if earlier is None else _listed(output, earlier)
    old = [picture for names in listed.values() for picture in names if picture.is_file()]
    _require_free([output / REPORT, output / SHEET] if earlier is None else [], ())
    _require_free(pictures, old)
    _require_folders({picture.parent for picture in pictures})
    write_report(output, _begun([*old, *pictures]))
    for picture in old:
        picture.unlink(missing_ok=True)
    for folder in listed:
        # Not empty, or not there.
        with suppress(OSError):
            folder.rmdir()


def write_report(output: Path, report: Mapping[str, object]) -> None:
    """Raises OSError, and leaves the report that is there, when it cannot be written."""
    replace_text(output / REPORT, json.dumps(report, indent=2) + "\n")


def _begun(pictures: Iterable[Path]) -> dict[str, object]:
    folders: dict[str, list[str]] = {}
    for picture in dict.fromkeys(pictures):
        folders.setdefault(picture.parent.name, []).append(picture.name)
    return {"interrupted": True, "comparison": None, "runs": [], "pictures": folders}


def _require_free(paths: Iterable[Path], ours: Iterable[Path]) -> None:
    # Where a file system ignores case, a picture of ours may be there under another spelling.
    known = {str(path).casefold(): path for path in ours}
    for path in paths:
        of_us = known.get(str(path).casefold())
        if path.exists() and not (of_us and path.samefile(of_us)):
            raise FileExistsError(
                f"{path} is there and no earlier run is known to have made it; move it, or choose another --output"
            )


def _require_folders(folders: Iterable[Path]) -> None:
    for folder in folders:
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is no folder; move it, or choose another --output")


def _earlier_report(path: Path) -> _Report | None:
    try:
        # Not model_validate_json, which takes no half of a surrogate pair: a file's name may hold one.
        return _Report.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None


def _listed(output: Path, report: _Report) -> dict[Path, set[Path]]:
    """The pictures of each folder. A report may have been edited: only plain names of pictures count."""
    folders: dict[Path, set[Path]] = {}
    for name, images in _named(report):
        pictures = folders.setdefault(output / name, set())
        pictures.update(output / name / image for image in images if _is_picture(image))
    return folders


def _named(report: _Report) -> Iterator[tuple[_Folder, list[str]]]:
    yield from report.pictures.items()
    for run in report.runs:
        yield run.folder or _folder_of_old(report, run), [request.image for request in run.requests]


def _folder_of_old(report: _Report, run: _Run) -> _Folder:
    """The last pass has `images/`. One on demand that was interrupted may have been the first of two: `images/` then
    was not its own."""
    if run is report.runs[-1] and not (report.interrupted and run.mode == "on-demand"):
        return "images"
    return "images-on-demand" if run.mode == "on-demand" else "images-prefetch"


def _is_picture(name: str) -> bool:
    return name.endswith(_SUFFIX) and Path(name).name == name
