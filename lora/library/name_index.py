"""NameIndex: which file a written name means.

The ladder, first rung that answers wins, and a rung with several answers refuses; there is no guess by substring:

1. *exact*       the catalog's own name, also through a symlinked folder; an absolute path that a folder lists
2. *separators*  `styles\\ink.safetensors`, `./styles//ink.safetensors`
3. *extension*   added (`styles/ink`), then another one (`styles/ink.pt` where the library holds `.safetensors`)
4. *stem*        `ink` for `styles/ink.safetensors`; of a name with folders first the files whose path ends with it,
                 then the last component alone
5. *unicode*     2 to 4, each asked again before the ladder goes on, with accents composed on both sides (macOS writes
                 e + ´ for é); an absolute path likewise
6. *case*        rung 4 without regard to case or to how accents are written
7. *alias*       `ss_output_name` of the header, then likewise
8. *hash*        8 or more leading hex digits of a digest in the header (AutoV3, sshs, modelspec)

Spaces around a name are its own only where a file is called so (rungs 1 to 3).
"""

from __future__ import annotations

import difflib
import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, takewhile
from typing import TypeAlias

from .file import LoraFile
from .scan import EXTENSIONS
from .spelling import composed, folded, hex_digits, with_slashes

Matches: TypeAlias = "Sequence[LoraFile]"

_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_MAX_NAME_CHARS = 4096
_MAX_SUGGESTIONS = 3
_MAX_SPELLINGS = 64
WHOLE_NAMES = frozenset({"exact", "separators", "extension"})
"""Rungs that ask for a file by its whole name, also by that of a link; the others know a file by its own name alone."""
# Written by diffusers and peft whatever the LoRA is: only the folder tells two of them apart.
_NAMELESS_STEMS = frozenset({"pytorch_lora_weights", "adapter_model"})


@dataclass(frozen=True, slots=True)
class Found:
    """`how` names the rung of the ladder that answered."""

    file: LoraFile
    how: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Several files answer to `name`; each of `candidates` is the exact name of one."""

    name: str
    candidates: tuple[str, ...]
    not_in: str = ""
    """The category that was asked for, where it holds none of them."""


@dataclass(frozen=True, slots=True)
class Missing:
    """No file answers to `name`."""

    name: str
    _similar: Callable[[str], tuple[str, ...]] = field(default=lambda name: (), repr=False, compare=False)

    @property
    def suggestions(self) -> tuple[str, ...]:
        """Names that look alike, best first. Computed when asked for: it takes milliseconds per thousand files."""
        return self._similar(self.name)


class NameIndex:
    """Lookups over one set of files; immutable. Tables are built when a name first climbs that high."""

    def __init__(
        self,
        files: Sequence[LoraFile],
        *,
        shadowed: Sequence[LoraFile] = (),
        real_paths: Iterable[tuple[str, LoraFile]] = (),
        folders: Iterable[str] = (),
        file_links: Iterable[tuple[str, str]] = (),
        folder_links: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._files = files
        self._exact = {file.name: file for file in files}
        self._listed = {file.path: file for file in (*shadowed, *files)}
        self._real_paths = tuple(real_paths)
        self._folders = tuple(folders)
        self._file_links = dict(file_links)
        self._folder_links = tuple(folder_links)
        self._written = _Names(files, str)
        self._composed = _Names(files, composed)
        self._folded = _Names(files, folded)

    def resolve(self, name: str) -> Found | Ambiguous | Missing:
        """The file that `name` means. A lookup in memory, whatever `name` holds."""
        return self._climb(self._spelling(name))

    def _spelling(self, name: str) -> str:
        bare = name.strip()
        if bare == name:
            return name
        found = self._climb(name)
        return name if isinstance(found, Found) and found.how in WHOLE_NAMES else bare

    def _climb(self, name: str) -> Found | Ambiguous | Missing:
        if not name or len(name) > _MAX_NAME_CHARS or ".." in re.split(r"[/\\]", name):
            return Missing(name)
        for how, matches in self._rungs(name):
            distinct = {file.path: file for file in matches}
            if len(distinct) > 1:
                return Ambiguous(name, tuple(sorted(file.name for file in distinct.values())))
            if distinct:
                return Found(matches[0], how)
        return Missing(name, self._similar)

    def rivals(self, name: str, found: Found) -> Iterator[str]:
        """Where a file that came since would be what `name` means now, in the host's order: the first that is there
        counts, and may be `found` by another path."""
        name = self._spelling(name)
        if _ABSOLUTE.match(name):
            return
        tidy = with_slashes(name)
        full = next((one for one in (name, tidy) if self._named(one)), None)
        if full is None:
            # Answered by a part of what is written: all of it would come first.
            paths = (_below(folder, one) for one in _fuller(tidy, found.how) for folder in self._folders)
            yield from (path for path in paths if self._at(path) is None)
            full = self._answering(tidy, found)
        for folder in self._folders:
            path = _below(folder, full)
            if path == found.file.path:
                return
            yield path

    def _answering(self, tidy: str, found: Found) -> str:
        """The full name by which `found` answered to a part of one: its own, or that of a link to it."""
        bares = (tidy, _bare(tidy))
        if found.how == "extension" and _bare(with_slashes(found.file.name)) not in bares:
            for name in (bare + end for bare in bares for end in EXTENSIONS):
                if self._named(name):
                    return name
        return found.file.name

    def _rungs(self, name: str) -> Iterator[tuple[str, Matches]]:
        yield "exact", self._named(name)
        if _ABSOLUTE.match(name):
            yield "exact", self._by_path.get(_path_key(name), ())
            yield "exact", self._by_real_path.get(_path_key(name), ())
            yield "unicode", self._by_composed_path.get(composed(_path_key(name)), ())
            return
        tidy = with_slashes(name)
        bare = _bare(tidy)
        # An ASCII name has no accents, and the tables are worth saving: most names are.
        accented = _NO_NAMES if name.isascii() else self._composed
        yield "separators", self._named(tidy) or self._written.tidy(tidy)
        yield "extension", self._extended(tidy)
        yield "extension", self._extended(bare)
        yield "unicode", accented.tidy(tidy)
        yield "unicode", accented.bare(tidy)
        yield "unicode", accented.bare(bare)
        yield "stem", self._written.below(bare)
        yield "unicode", accented.below(bare)
        yield "stem", self._written.last(bare)
        yield "unicode", accented.last(bare)
        yield "case", self._folded.below(bare)
        yield "case", self._folded.last(bare)
        yield "alias", self._by_alias.get(name, ())
        yield "alias", self._by_folded_alias.get(folded(name), ())
        yield "hash", self._by_hash(name)

    def _named(self, name: str) -> Matches:
        """By exact name, in the first folder that has it, as the host does."""
        if name in self._exact and not (self._file_links or self._folder_links):
            return (self._exact[name],)
        for folder in self._folders:
            file = self._at(_below(folder, name))
            if file is not None:
                return (file,)
        return ()

    def _at(self, path: str) -> LoraFile | None:
        """The file at `path`, also by the other paths of what is reachable twice."""
        spellings = [path]
        for spelling in spellings:
            file = self._listed.get(self._file_links.get(spelling, spelling))
            if file is not None:
                return file
            for other, first in self._folder_links:
                respelt = first + spelling[len(other) :]
                if spelling.startswith(other) and respelt not in spellings and len(spellings) < _MAX_SPELLINGS:
                    spellings.append(respelt)
        return None

    def _extended(self, bare: str) -> Matches:
        return self._written.bare(bare) or [file for end in EXTENSIONS for file in self._named(bare + end)]

    def _by_hash(self, name: str) -> Matches:
        digits = hex_digits(name)
        if not digits:
            return ()
        first = bisect_left(self._hashes, digits, key=_digest)
        following = islice(self._hashes, first, None)
        return [file for _, file in takewhile(lambda pair: pair[0].startswith(digits), following)]

    def _similar(self, name: str) -> tuple[str, ...]:
        tidy = with_slashes(name)
        stem = folded(_stem(_bare(tidy)))
        near = difflib.get_close_matches(stem, self._folded.by_stem, _MAX_SUGGESTIONS)
        names = [file.name for match in near for file in self._folded.by_stem[match]]
        return tuple(names[:_MAX_SUGGESTIONS])

    @cached_property
    def _by_path(self) -> dict[str, list[LoraFile]]:
        return _table((_path_key(path), file) for path, file in self._listed.items())

    @cached_property
    def _by_real_path(self) -> dict[str, list[LoraFile]]:
        return _table((_path_key(path), file) for path, file in self._real_paths)

    @cached_property
    def _by_composed_path(self) -> dict[str, list[LoraFile]]:
        return _table((composed(_path_key(path)), file) for path, file in self._listed.items())

    @cached_property
    def _by_alias(self) -> dict[str, list[LoraFile]]:
        return _table((file.alias, file) for file in self._files if file.alias)

    @cached_property
    def _by_folded_alias(self) -> dict[str, list[LoraFile]]:
        return _table((folded(file.alias), file) for file in self._files if file.alias)

    @cached_property
    def _hashes(self) -> list[tuple[str, LoraFile]]:
        return sorted(((digest, file) for file in self._files for digest in file.hashes), key=_digest)


class _Names:
    """`files` by their names, those that `fold` makes equal being one."""

    def __init__(self, files: Sequence[LoraFile], fold: Callable[[str], str]) -> None:
        self._files = files
        self._fold = fold

    def tidy(self, name: str) -> Matches:
        return self._by_tidy.get(self._fold(name), ())

    def bare(self, name: str) -> Matches:
        return self._by_bare.get(self._fold(name), ())

    def below(self, bare: str) -> Matches:
        """Files whose path ends with `bare`."""
        end = f"/{self._fold(bare)}"
        matches = self.by_stem.get(_stem(end), ())
        return [file for file in matches if f"/{self._fold(_bare(with_slashes(file.name)))}".endswith(end)]

    def last(self, bare: str) -> Matches:
        """Files whose path ends with the last component of `bare`, where that says anything."""
        stem = self._fold(_stem(bare))
        return () if stem in _NAMELESS_STEMS else self.by_stem.get(stem, ())

    @cached_property
    def _by_tidy(self) -> dict[str, list[LoraFile]]:
        return _table((self._fold(with_slashes(file.name)), file) for file in self._files)

    @cached_property
    def _by_bare(self) -> dict[str, list[LoraFile]]:
        return _table((self._fold(_bare(with_slashes(file.name))), file) for file in self._files)

    @cached_property
    def by_stem(self) -> dict[str, list[LoraFile]]:
        return _table((self._fold(_stem(_bare(with_slashes(file.name)))), file) for file in self._files)


_NO_NAMES = _Names((), str)


def _below(folder: str, name: str) -> str:
    return os.path.join(folder, "") + name.replace("/", os.sep)


def _fuller(tidy: str, how: str) -> Iterator[str]:
    """Names that `tidy` would rather mean than the one that answered on rung `how`."""
    bare = _bare(tidy)
    if how != "extension" or bare != tidy:
        yield tidy
    if how != "extension":
        yield from (bare + end for end in EXTENSIONS)


def _digest(pair: tuple[str, LoraFile]) -> str:
    return pair[0]


def _table(pairs: Iterable[tuple[str, LoraFile]]) -> dict[str, list[LoraFile]]:
    table: dict[str, list[LoraFile]] = {}
    for key, file in pairs:
        table.setdefault(key, []).append(file)
    return table


def _bare(name: str) -> str:
    """`name` without a weight file's extension; the dot in `ink v1.5` stays."""
    root, extension = os.path.splitext(name)
    return root if extension.lower() in EXTENSIONS else name


def _stem(bare: str) -> str:
    return bare.rpartition("/")[2]


def _path_key(path: str) -> str:
    return os.path.normcase(with_slashes(path)).replace("\\", "/")
