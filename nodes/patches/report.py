"""What happened to each LoRA of a stack, as lines for a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...lora.fusing.share import share_of_equals

WRONG_MODEL_SHARE = 0.7071
"""Below this matched share of the update, a LoRA is reported as made for another model: what half of its modules are
where all change as much. Just under the root of a half, which such a share meets only to the last bit or so."""


@dataclass(frozen=True, slots=True)
class Match:
    """How much of one LoRA file found its weights in the models."""

    modules: int
    matched_modules: int
    norm_share: float | None
    """Share of the update's norm, as estimated, that lands on a weight: 0..1. None where the file alone cannot tell."""
    unmatched: tuple[str, ...] = ()
    """Modules of the file that no model here knows."""
    misfits: tuple[str, ...] = ()
    """Weights that the file names and cannot change, the whole or a slice, because its tensors have another shape."""

    @property
    def share(self) -> float:
        """That of the update's norm; where that is not known, as if all modules changed as much."""
        if self.norm_share is not None:
            return self.norm_share
        return share_of_equals(self.matched_modules, self.modules - self.matched_modules)


@dataclass(frozen=True, slots=True)
class RowReport:
    """One LoRA of the stack, as it was applied."""

    name: str
    strength_model: float
    strength_clip: float
    base_model: str
    outcome: str
    wait_s: float
    match: Match
    clip_given: bool


def render(rows: Sequence[RowReport], notes: Sequence[str], math: str) -> str:
    """The whole report: one line per LoRA in stack order, a warning right below its LoRA, then the notes."""
    lines = []
    for row in rows:
        lines.append(_line(row, math))
        warning = wrong_model(row)
        if warning:
            lines.append(f"  WARNING {warning}")
    if not rows:
        lines.append("no LoRA to apply: model and clip are passed on as they are")
    return "\n".join([*lines, *notes])


def as_json(rows: Sequence[RowReport], notes: Sequence[str]) -> dict[str, object]:
    """The same for the stack editor: a row per LoRA that was applied, and the notes."""
    return {
        "rows": [
            {
                "name": row.name,
                "share": round(row.match.share, 4),
                "base_model": row.base_model,
                "outcome": row.outcome,
                "warning": wrong_model(row),
            }
            for row in rows
        ],
        "notes": list(notes),
    }


def wrong_model(row: RowReport) -> str:
    """One line that says that this LoRA does not belong to the model; "" when it does."""
    match = row.match
    if match.modules and match.share >= WRONG_MODEL_SHARE and not match.misfits:
        return ""
    if not match.modules:
        return f"{row.name!r} holds no LoRA weights"
    if not row.clip_given and match.share > 0 and not match.misfits and _only_text_encoder(match.unmatched):
        return ""
    made_for = f"made for {row.base_model}" if row.base_model else "made for another base model"
    example = f", such as {(match.misfits or match.unmatched)[0]!r}" if match.misfits or match.unmatched else ""
    return (
        f"{row.name!r} looks {made_for}: this model takes {match.matched_modules} of its {match.modules} modules"
        f"{example}; load it with a checkpoint of its own kind"
    )


def _line(row: RowReport, math: str) -> str:
    match = row.match
    share = "" if match.norm_share is None else f" ({match.norm_share:.0%} of the update)"
    return (
        f"{row.name}: model {row.strength_model:g}, clip {row.strength_clip:g}, "
        f"matched {match.matched_modules}/{match.modules} modules{share}, "
        f"{row.outcome} {row.wait_s * 1000:.1f} ms, {math}"
    )


def _only_text_encoder(modules: Sequence[str]) -> bool:
    return all(module.startswith(("lora_te", "text_encoder", "text_model", "te")) for module in modules)
