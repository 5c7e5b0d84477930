"""The request JSON of a program: which LoRAs, and weights over all of them and over categories.

`{"lora": {"enabled": true, "global_weight": 0.9, "category_weights": {"styles": 0.5}, "models": [ROW, ...]}}`, or the
inner object alone. A ROW is whatever a stack row may be: `{"name", "weight", "category"}`, a bare name, a short list.

strength = written weight × global_weight × weight of the row's category. A category `characters/anime` takes the
weight of `characters/anime` where there is one, else that of `characters`; case, the kind of slash and how accents
are written do not matter. `"enabled": false` and a request without models are the empty stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ..errors import LoraSyntaxError
from ..library.categories import category_key
from .request_weights import RequestWeights
from .row import LoraRow, number, shown, switch
from .rows import read_row, require_known

_FIELDS = ("enabled", "global_weight", "category_weights", "models")


def is_request(value: object) -> bool:
    """True for an object that means a request, in either form."""
    if not isinstance(value, Mapping):
        return False
    inner = value.get("lora")
    return isinstance(inner, Mapping | list) or any(field in value for field in _FIELDS[1:])


def read_request(request: object, category_of: Callable[[str], str | None] | None = None) -> tuple[LoraRow, ...]:
    """Rows of a request, weights applied. `category_of(name)` is asked for the category of rows that name none; where
    it says None, nobody can tell yet, and the row keeps its weights for who can."""
    body = _body(request)
    require_known(body, _FIELDS, "request")
    if not switch(body.get("enabled", True), "request, 'enabled'"):
        return ()
    global_weight = number(body.get("global_weight", 1.0), "request, 'global_weight'")
    weights = RequestWeights(global_weight, _category_weights(body.get("category_weights")))
    rows = []
    for index, entry in enumerate(_models(body.get("models")), 1):
        row = read_row(entry, f"request, model {index}")
        if row is not None:
            category: str | None = row.category
            if not category and category_of and weights.ask_for_category:
                category = category_of(row.name)
            rows.append(replace(row, weights=weights) if category is None else row.scaled(weights.of(category)))
    return tuple(rows)


def _body(request: object) -> Mapping[object, object]:
    if not isinstance(request, Mapping):
        raise LoraSyntaxError(f'request {shown(request)} is not an object; write {{"lora": {{"models": [...]}}}}')
    body = request.get("lora", request)
    if body is None:
        return {}
    if isinstance(body, list):
        return {"models": body}
    if not isinstance(body, Mapping):
        raise LoraSyntaxError(f'request: "lora" is {shown(body)}, not an object; write {{"lora": {{"models": [...]}}}}')
    if body is request and body and not any(field in body for field in _FIELDS):
        raise LoraSyntaxError(f'request {shown(dict(body))} has neither "lora" nor "models"')
    return body


def _models(value: object) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise LoraSyntaxError(f"request: 'models' is {shown(value)}, not a list")
    return list(value)


def _category_weights(value: object) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise LoraSyntaxError(f"request: 'category_weights' is {shown(value)}, not an object of category: weight")
    weights: dict[str, float] = {}
    for category, weight in value.items():
        where = f"request, category weight of {shown(category)}"
        key, found = category_key(str(category)), number(weight, where)
        # Either would be without effect in silence.
        if not key:
            raise LoraSyntaxError(f"{where}: that is no category; a weight over all LoRAs is 'global_weight'")
        if weights.setdefault(key, found) != found:
            raise LoraSyntaxError(f"{where}: weights of one category contradict each other; write one of them")
    return weights
