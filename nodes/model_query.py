"""The model file that a client asks about."""

from __future__ import annotations

from collections.abc import Mapping

from .request_body import MAX_NAME_CHARACTERS, RequestError, only

MODEL_KINDS = ("checkpoints", "diffusion_models")


def parse_model_query(query: Mapping[str, str]) -> tuple[str, str]:
    """(kind, name) from a query string. Only their form is checked. Raises RequestError."""
    only(query, "kind", "name")
    kind, name = query.get("kind", ""), query.get("name", "")
    if kind not in MODEL_KINDS:
        raise RequestError("invalid_value", f"`kind` must be one of {', '.join(MODEL_KINDS)}")
    if not name or len(name) > MAX_NAME_CHARACTERS:
        raise RequestError("invalid_value", f"`name` must be a name of at most {MAX_NAME_CHARACTERS} characters")
    return kind, name
