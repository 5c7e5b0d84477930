"""HeaderFacts: what the header of one LoRA file tells the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...loaders.errors import SafetensorsLoadError, SafetensorsValidationError
from ...loaders.files.header import read_header
from .base_model import base_model_of, rank_of
from .categories import metadata_category
from .spelling import hex_digits

_HASH_FIELDS = ("sshs_model_hash", "modelspec.hash_sha256", "sshs_legacy_hash")
_ALIAS_CHARS = 255
_PROBLEM_CHARS = 300


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """Everything but name, size and time. The fields are those of LoraFile; `category` is that of the metadata."""

    category: str = ""
    category_evidence: str = ""
    base_model: str = ""
    base_model_evidence: str = ""
    alias: str = ""
    hashes: tuple[str, ...] = ()
    rank: int | None = None
    problem: str = ""
    is_lasting: bool = True
    """False when the file could not be read this time: another try may tell more."""


def read_facts(path: str) -> HeaderFacts:
    """Read the header of the safetensors file `path`; what is wrong with it becomes the `problem`."""
    try:
        header = read_header(path)
    except SafetensorsValidationError as error:
        return HeaderFacts(problem=_one_line(error.reason))
    except SafetensorsLoadError as error:
        return HeaderFacts(problem=_one_line(error.reason), is_lasting=False)
    category, base_model = metadata_category(header.metadata), base_model_of(header)
    return HeaderFacts(
        category=category.name,
        category_evidence=category.evidence,
        base_model=base_model.name,
        base_model_evidence=base_model.evidence,
        alias=_alias(header.metadata),
        hashes=_hashes(header.metadata),
        rank=rank_of(header),
    )


def _alias(metadata: Mapping[str, str]) -> str:
    alias = metadata.get("ss_output_name", "").strip()
    return alias if len(alias) <= _ALIAS_CHARS and alias.isprintable() and alias.lower() != "none" else ""


def _hashes(metadata: Mapping[str, str]) -> tuple[str, ...]:
    found = (hex_digits(metadata.get(field, "").strip()) for field in _HASH_FIELDS)
    return tuple(dict.fromkeys(filter(None, found)))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_PROBLEM_CHARS]
