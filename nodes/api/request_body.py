"""RequestError, and reading what a request says no further than it is trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

MAX_BODY_BYTES = 256 * 1024
MAX_PROMPT_BODY_BYTES = 8 * 1024 * 1024
"""A graph of thousands of nodes is 1-2 MB; images do not travel in prompts."""
MAX_NAMES = 1000
MAX_NAME_CHARACTERS = 1024
MODEL_KINDS = ("checkpoints", "diffusion_models")

_CHUNK_BYTES = 64 * 1024


class RequestError(Exception):
    """The client's mistake. `kind` is for programs, the text for people; neither repeats a path of this machine."""

    def __init__(self, kind: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status


async def read_object(request: web.Request, limit_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """The JSON object in the body. Raises RequestError for another content type, more bytes, or anything that is not
    an object."""
    if request.content_type != "application/json":
        raise RequestError("content_type", "send Content-Type: application/json", 415)
    raw = bytearray()
    async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
        raw += chunk
        if len(raw) > limit_bytes:
            raise RequestError("too_large", f"the body is larger than {limit_bytes} bytes", 413)
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise RequestError("invalid_json", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise RequestError("invalid_body", "the body must be a JSON object")
    return body


def only(body: Mapping[str, Any], *known: str) -> None:
    """Raises RequestError for a key that means nothing here: a misspelt setting must not look obeyed."""
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise RequestError("unknown_key", f"unknown: {', '.join(map(repr, unknown[:5]))}; known: {', '.join(known)}")


def names_in(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The LoRA names under `names`. Only their form is checked; the catalog decides whether they exist."""
    names = body.get("names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise RequestError("invalid_names", "`names` must be a list of LoRA names")
    if len(names) > MAX_NAMES or any(len(name) > MAX_NAME_CHARACTERS for name in names):
        raise RequestError("invalid_names", f"at most {MAX_NAMES} names of {MAX_NAME_CHARACTERS} characters")
    return tuple(dict.fromkeys(names))


def model_in(query: Mapping[str, str]) -> tuple[str, str]:
    """(kind, name) of a model file. Only their form is checked, as with `names_in`."""
    only(query, "kind", "name")
    kind, name = one_of(query.get("kind", ""), "kind", MODEL_KINDS), query.get("name", "")
    if not name or len(name) > MAX_NAME_CHARACTERS:
        raise RequestError("invalid_value", f"`name` must be a name of at most {MAX_NAME_CHARACTERS} characters")
    return kind, name


def one_of(value: str, key: str, known: Sequence[str]) -> str:
    if value not in known:
        raise RequestError("invalid_value", f"`{key}` must be one of {', '.join(filter(None, known))}")
    return value


def flag_in(body: Mapping[str, Any], key: str, default: bool) -> bool:
    value = body.get(key, default)
    if not isinstance(value, bool):
        raise RequestError("invalid_body", f"`{key}` must be true or false")
    return value
