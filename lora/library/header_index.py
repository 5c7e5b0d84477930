"""HeaderIndex: the headers read so far, kept on disk: a library of 10,000 files is read once, not once per start."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..atomic_file import replace_text
from .file import AdapterKey
from .header_facts import HeaderFacts

logger = logging.getLogger(__name__)

_VERSION = 2
"""To be raised whenever the facts of an unchanged file may come out differently: old indexes are then dropped."""
_TEXT_FIELDS = tuple(field.name for field in fields(HeaderFacts) if field.type == "str")


class HeaderIndex:
    """Facts by (path, size, mtime_ns). One user at a time. A damaged index file is an empty one, an unwritable one a
    single warning in the log: either costs time and nothing else. `path` None keeps it in memory."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._facts: dict[AdapterKey, HeaderFacts] | None = None
        self._is_dirty = False
        self._has_warned = False

    def get(self, key: AdapterKey) -> HeaderFacts | None:
        return self._loaded().get(key)

    def remember(self, key: AdapterKey, facts: HeaderFacts) -> None:
        if facts.is_lasting:
            self._loaded()[key] = facts
            self._is_dirty = True

    def retain(self, is_wanted: Callable[[AdapterKey], bool]) -> None:
        """Forget every key that is not wanted."""
        known = self._loaded()
        kept = {key: facts for key, facts in known.items() if is_wanted(key)}
        self._is_dirty |= len(kept) < len(known)
        self._facts = kept

    def save(self) -> None:
        """Write what changed, as one replacement of the file: a reader sees the old index or the new."""
        if self._path is None or not self._is_dirty:
            return
        document = {"version": _VERSION, "files": [[*key, _to_json(facts)] for key, facts in self._loaded().items()]}
        try:
            replace_text(self._path, json.dumps(document, separators=(",", ":")))
        except OSError as error:
            # Tried again at each scan: a full disk may have room by then.
            level = logging.DEBUG if self._has_warned else logging.WARNING
            logger.log(
                level, "The LoRA index cannot be saved (%s); headers are read again after a restart", error.strerror
            )
            self._has_warned = True
            return
        self._is_dirty = False

    def _loaded(self) -> dict[AdapterKey, HeaderFacts]:
        if self._facts is None:
            self._facts = _read(self._path) if self._path is not None else {}
        return self._facts


def _read(path: Path) -> dict[AdapterKey, HeaderFacts]:
    try:
        document = json.loads(path.read_bytes())
        if document["version"] != _VERSION:
            return {}
        return {_key(*entry[:3]): _from_json(entry[3]) for entry in document["files"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        logger.warning("The LoRA index is unreadable (%s); headers are read again", type(error).__name__)
        return {}


def _key(path: Any, size_bytes: Any, mtime_ns: Any) -> AdapterKey:
    if not (isinstance(path, str) and isinstance(size_bytes, int) and isinstance(mtime_ns, int)):
        raise TypeError("not a key")
    return AdapterKey(path, size_bytes, mtime_ns)


def _to_json(facts: HeaderFacts) -> dict[str, object]:
    return {name: value for name, value in asdict(facts).items() if name != "is_lasting" and value}


def _from_json(entry: Mapping[str, Any]) -> HeaderFacts:
    texts = {name: entry.get(name, "") for name in _TEXT_FIELDS}
    hashes, rank = entry.get("hashes", []), entry.get("rank")
    if not all(isinstance(text, str) for text in (*texts.values(), *hashes)) or not isinstance(rank, int | None):
        raise TypeError("not facts")
    return HeaderFacts(**texts, hashes=tuple(hashes), rank=rank)
