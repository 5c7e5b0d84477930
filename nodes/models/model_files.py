"""ModelFiles: the weight files below the host's folders of one kind, those included that the host itself does not list
(GGUF, an index of shards)."""

from __future__ import annotations

import difflib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...loaders.files.checkpoint import is_weight_file
from ...loaders.files.shards import INDEX_SUFFIX

_HAS_DRIVES = os.name == "nt"
"""There a colon leads to another drive; elsewhere it is a letter like any other."""
_SHARD = re.compile(r"(.+)-\d+-of-\d+\.safetensors")


class ModelFileError(Exception):
    """A model cannot be loaded. One line that names it as the user does, and no folder of this machine."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"model {name!r}: {reason}")
        self.name = name


@dataclass(frozen=True, slots=True)
class _Listing:
    names: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    changed_ns: Mapping[str, int] = field(default_factory=dict)
    """Folder -> when something was last added to it or removed, as it was before it was listed."""


class ModelFiles:
    """Thread-safe. Listing again costs one stat per folder until one of them changes."""

    def __init__(self, folders: Callable[[], Sequence[str]]) -> None:
        self._folders = folders
        self._lock = threading.Lock()
        self._listing = _Listing()

    def names(self) -> list[str]:
        """Paths below the folders, sorted. A shard is not listed where the index of its model is."""
        roots = tuple(self._folders())
        with self._lock:
            if roots != self._listing.roots or _changed(self._listing):
                self._listing = _list(roots)
            return list(self._listing.names)

    def find(self, name: str) -> str:
        """The file of that name, in the first folder that has it. ModelFileError when there is none."""
        if not _is_below(name):
            raise ModelFileError(name, "is not the name of a weight file below a model folder; choose one of the list")
        path = file_below(self._folders(), name)
        if path is not None:
            return path
        close = " or ".join(map(repr, difflib.get_close_matches(name, self.names(), 3)))
        cure = f"did you mean {close}" if close else "choose one of the list"
        raise ModelFileError(name, f"there is no such file; {cure}")


def file_below(folders: Sequence[str], name: str) -> str | None:
    """The weight file of that name in the first of `folders` that has it; None also for a name that leads out of
    them."""
    if _is_below(name):
        # As it is first: on most systems a backslash may also be part of a file's own name.
        spellings = dict.fromkeys((name, name.replace("\\", "/")))
        for path in (os.path.join(folder, *one.split("/")) for one in spellings for folder in folders):
            if os.path.isfile(path):
                return path
    return None


def _is_below(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return is_weight_file(name) and not (os.path.isabs(name) or ".." in parts or (_HAS_DRIVES and ":" in name))


def _changed(listing: _Listing) -> bool:
    return any(_modified_ns(folder) != changed_ns for folder, changed_ns in listing.changed_ns.items())


def _list(roots: Sequence[str]) -> _Listing:
    changed_ns: dict[str, int] = {}
    names: set[str] = set()
    for root in roots:
        for folder, files in _folders_below(root, changed_ns):
            indexed = {
                name.removesuffix(f".safetensors{INDEX_SUFFIX}") for name in files if name.endswith(INDEX_SUFFIX)
            }
            listed = (os.path.join(folder, name) for name in files if _listed(name, indexed))
            below = (os.path.relpath(path, root) for path in listed if os.path.isfile(path))
            names |= {name for name in below if _is_below(name)}
    return _Listing(tuple(sorted(names)), tuple(roots), changed_ns)


def _folders_below(root: str, changed_ns: dict[str, int]) -> Iterator[tuple[str, list[str]]]:
    """(folder, files in it); notes in `changed_ns` when each was last changed. A root that is not there counts too: it
    may come."""
    changed_ns[root] = _modified_ns(root)
    seen: set[str] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            # A link to a folder above it: without this the walk goes round until names are too long.
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if name != ".git"]
        changed_ns.update((path, _modified_ns(path)) for path in (os.path.join(folder, name) for name in below))
        yield folder, files


def _listed(name: str, indexed: set[str]) -> bool:
    shard = _SHARD.fullmatch(name)
    return is_weight_file(name) and (shard is None or shard[1] not in indexed)


def _modified_ns(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return -1
