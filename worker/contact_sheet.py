"""One picture of a whole run: every image with its LoRAs and its wait below."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .report import RequestReport

CELL_PX = 192
CAPTION_PX = 58
GAP_PX = 12
COLUMNS = 4
MOST_CELLS = 200
"""A sheet of ten thousand requests would take 2 GB to draw."""
_MORE_PX = 24
_PAPER = (18, 20, 26)
_EMPTY = (34, 37, 46)
_INK = (226, 230, 238)
_FAINT = (146, 153, 168)
_ALARM = (242, 139, 130)


def save_contact_sheet(requests: Sequence[RequestReport], images: Path, path: Path) -> None:
    """Writes `path` (PNG), with the first MOST_CELLS of the requests. `images` is the folder that their file names are
    in; a picture that is gone leaves its cell empty."""
    shown, more = requests[:MOST_CELLS], len(requests) - MOST_CELLS
    columns = min(COLUMNS, max(1, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    step_x, step_y = CELL_PX + GAP_PX, CELL_PX + CAPTION_PX + GAP_PX
    end = GAP_PX + rows * step_y
    sheet = Image.new("RGB", (GAP_PX + columns * step_x, end + _MORE_PX * (more > 0)), _PAPER)
    for index, request in enumerate(shown):
        row, column = divmod(index, columns)
        _paint(sheet, request, images, GAP_PX + column * step_x, GAP_PX + row * step_y)
    if more > 0:
        _write(ImageDraw.Draw(sheet), [f"and {more} more, which the report lists"], GAP_PX, end, _INK)
    sheet.save(path)


def _paint(sheet: Image.Image, request: RequestReport, images: Path, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    picture = _thumbnail(images / request.image) if request.image else None
    if picture is not None:
        sheet.paste(picture, (left, top))
    else:
        draw.rectangle((left, top, left + CELL_PX - 1, top + CELL_PX - 1), fill=_EMPTY)
        _write(draw, _wrapped(request.problems, 30, 9), left + 8, top + 8, _ALARM)
    waited = f"  {request.wait_s * 1000:.0f} ms wait" if request.loras else ""
    _write(draw, [f"{request.id}{waited}"], left, top + CELL_PX + 6, _INK)
    stack = [f"{lora.stem} {lora.strength_model:g}" for lora in request.loras]
    plain = "no LoRA" if request.image else "not made"
    _write(draw, _wrapped([", ".join(stack) or plain], 34, 2), left, top + CELL_PX + 22, _FAINT)


def _thumbnail(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            return image.convert("RGB").resize((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
    except OSError:
        return None


def _write(draw: ImageDraw.ImageDraw, lines: Sequence[str], left: int, top: int, colour: tuple[int, int, int]) -> None:
    font = ImageFont.load_default(size=11)
    for index, line in enumerate(lines):
        draw.text((left, top + index * 15), line, fill=colour, font=font)


def _wrapped(texts: Sequence[str], width: int, lines: int) -> list[str]:
    found = textwrap.wrap(" ".join(texts), width)
    if len(found) > lines:
        found[lines - 1] = found[lines - 1][: width - 1] + "…"
    return found[:lines]
