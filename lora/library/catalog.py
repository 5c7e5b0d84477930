"""LoraCatalog: every LoRA file in the configured folders, found by header-only scans and looked up by name."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from pathlib import Path

from ...loaders.files.header import SAFETENSORS_SUFFIXES
from ...loaders.system.daemon_pool import DaemonPool
from ..errors import AmbiguousLoraError, LoraError, LoraNotFoundError
from .categories import covers, folder_category
from .file import AdapterKey, LoraFile, as_on_disk
from .header_facts import HeaderFacts, read_facts
from .header_index import HeaderIndex
from .name_index import Ambiguous, Found, Missing, NameIndex
from .scan import ListedFile, Listing, list_files
from .spelling import folded

__all__ = ["Ambiguous", "CatalogSnapshot", "Found", "LoraCatalog", "Missing"]

_READERS = 4
"""Enough to hide the latency of a network share; on one disk more only seek."""
_BATCH_FILES = 1000
"""Headers between two saves of the index: a first scan of a huge library that is cut short is not lost."""
_JOIN_S = 5.0
"""How long an end of reading waits for threads that have nothing left to read."""
_NAMES_FIRST_FILES = 64
"""With more headers to read than this, the names are published before them."""
_UNREAD = HeaderFacts()
_BY_CATEGORY = "category"
_HEADER_ANSWERS = frozenset({"alias", "hash", _BY_CATEGORY})
"""Ways to be found that a header not read yet may make ambiguous."""


@dataclass(frozen=True, slots=True)
class CatalogSnapshot:
    """The catalog at one moment."""

    files: tuple[LoraFile, ...] = ()
    """Sorted by name; names are unique."""
    revision: int = 0
    """Changes when, and only when, something else did; 0 before the first scan."""
    unread: frozenset[AdapterKey] = frozenset()
    """Files whose headers are still being read: nothing but name, size and time is known of them."""
    doubtful: frozenset[AdapterKey] = frozenset()
    """Files that could not be opened: the next refresh may tell more."""
    away: frozenset[AdapterKey] = frozenset()
    """Files in the cloud, whose headers stay unread until one is needed."""
    names: NameIndex = field(default_factory=lambda: NameIndex(()), repr=False, compare=False)

    def is_doubtful(self, file: LoraFile) -> bool:
        """True when the `problem` of `file` may have passed, though the file is the same."""
        return file.key in self.doubtful

    def may_have_category(self, file: LoraFile) -> bool:
        """True while `file` is in none, and its header, which nobody has read yet, may tell one."""
        return not file.category and (file.key in self.unread or file.key in self.away)

    def resolve(self, name: str, category: str = "") -> Found | Ambiguous | Missing:
        """Which file `name` means, see `name_index.py`; `category` decides between several, and is then the `how`."""
        answer = self.names.resolve(name)
        if not category or not isinstance(answer, Ambiguous):
            return answer
        candidates = (self.names.resolve(one) for one in answer.candidates)
        inside = [one.file for one in candidates if isinstance(one, Found) and covers(category, one.file.category)]
        if len(inside) == 1:
            return Found(inside[0], _BY_CATEGORY)
        return Ambiguous(name, tuple(file.name for file in inside)) if inside else replace(answer, not_in=category)


class LoraCatalog:
    """The LoRAs below `folders()`, which is asked at every refresh; of two files of one name the first folder's counts.

    `index_path` is where headers are remembered between runs. Safe to use from any thread: a refresh blocks others that
    want one, never a lookup.
    """

    def __init__(self, folders: Callable[[], Sequence[str]], *, index_path: Path | None = None) -> None:
        self._folders = folders
        self._index = HeaderIndex(index_path)
        self._snapshot = CatalogSnapshot()
        self._content: object = None
        self._settled: Listing | None = None
        self._refreshing = threading.Lock()
        self._refreshes_begun = 0
        self._unlisted: frozenset[tuple[int, str]] = frozenset()
        """(revision, path) of files that are there and that this revision does not list under that path."""

    @property
    def snapshot(self) -> CatalogSnapshot:
        return self._snapshot

    @property
    def is_refreshing(self) -> bool:
        """A refresh would wait for the one that goes on now."""
        return self._refreshing.locked()

    def refresh(self) -> CatalogSnapshot:
        """List the folders and read the headers of new files. Blocks on the disk; never raises for what lies there."""
        begun = self._refreshes_begun
        with self._refreshing:
            # One that began while this call waited has seen everything that this call was made for.
            if self._refreshes_begun == begun:
                self._refreshes_begun += 1
                listing = list_files(self._folders())
                if listing != self._settled:
                    self._read(listing)
            return self._snapshot

    def resolve(self, name: str, category: str = "") -> Found | Ambiguous | Missing:
        """Which file `name` means. A lookup in the snapshot: no disk, no refresh."""
        return self._snapshot.resolve(name, category)

    def find(self, name: str, category: str = "") -> LoraFile:
        """The file that `name` means, as it is on disk now: a replaced file comes back with its new key.

        A name that the snapshot does not answer, a file that changed or could not be opened, or one that is overtaken,
        costs one refresh; a name that headers decide waits until all are read. LoraNotFoundError, AmbiguousLoraError.
        """
        snapshot = self._snapshot
        found = snapshot.resolve(name, category)
        if isinstance(found, Found) and not (snapshot.unread and found.how in _HEADER_ANSWERS):
            current = as_on_disk(found.file)
            is_doubtful = snapshot.is_doubtful(found.file)
            if current == found.file and not is_doubtful and not self.is_overtaken(name, found):
                return current
        found = self.catch_up(name, category)
        if isinstance(found, Ambiguous):
            raise AmbiguousLoraError(name, found.candidates, not_in=found.not_in)
        # Stat again: a file that is being written is already another one.
        file = as_on_disk(found.file) if isinstance(found, Found) else None
        if file is None:
            raise LoraNotFoundError(name, found.suggestions if isinstance(found, Missing) else ())
        return file

    def is_overtaken(self, name: str, found: Found) -> bool:
        """True when `name` means another file than the one `found`, by a file that no scan has seen: one of that name
        in an earlier folder, one that the whole name fits and not only a part, or a link's new target. Blocks: a stat
        for each earlier folder; of a name without folder or extension, a dozen.

        A second file that fits a part of the name just as well is left to the next scan. What is there and yet not in
        the list (no LoRA by its name, or another spelling where case does not count) costs one scan and no more."""
        snapshot = self._snapshot
        for path in snapshot.names.rivals(name, found):
            if os.path.isfile(path) and (snapshot.revision, path) not in self._unlisted:
                return not _is_same(path, found.file.path)
        return False

    def catch_up(self, name: str, category: str = "") -> Found | Ambiguous | Missing:
        """`resolve` after a refresh."""
        # What comes once its folder has been listed is not in the list either, and for the next scan to find.
        there = self._in_the_way(self._snapshot, name, category)
        snapshot = self.refresh()
        left = {(snapshot.revision, path) for path in there & self._in_the_way(snapshot, name, category)}
        # Replaced and never changed: other threads read it.
        self._unlisted = frozenset(left.union(one for one in self._unlisted if one[0] == snapshot.revision))
        return snapshot.resolve(name, category)

    def category_of(self, name: str, category: str = "") -> str:
        """The category of the file that `find` finds; "" when it has none or no single file answers. Blocks like
        `find`, and where only the header tells, until it is read."""
        snapshot = self._snapshot
        try:
            file = self.find(name, category)
            if not file.category and (file.key in snapshot.unread or self._snapshot is not snapshot):
                self.refresh()
                file = self.find(name, category)
            if not file.category and file.key in self._snapshot.away:
                self._fetch(file.key)
                file = self.find(name, category)
        except LoraError:
            return ""
        return file.category

    def select(self, category: str = "", base_model: str = "", pattern: str = "") -> tuple[LoraFile, ...]:
        """Files of the snapshot that pass every filter given; neither case nor how accents are written matters.

        `category` covers what lies below it: `characters` selects `characters/anime` too. `pattern` is a glob: with a
        `/` it is matched against the whole name (`*` crosses folders), without one against the file's own name; with or
        without the extension.
        """
        files = (file for file in self._snapshot.files if covers(category, file.category))
        if base_model.strip():
            files = (file for file in files if file.base_model.casefold() == base_model.strip().casefold())
        if pattern.strip():
            glob = folded(pattern.strip().replace("\\", "/"))
            files = (file for file in files if _matches(folded(file.name), glob))
        return tuple(files)

    def _in_the_way(self, snapshot: CatalogSnapshot, name: str, category: str) -> frozenset[str]:
        """Paths that are there and come before the file that `snapshot` knows for `name`."""
        match = snapshot.resolve(name, category)
        if not isinstance(match, Found):
            return frozenset()
        there = filter(os.path.isfile, snapshot.names.rivals(name, match))
        return frozenset(path for path in there if not _is_same(path, match.file.path))

    def _fetch(self, key: AdapterKey) -> None:
        """Read the header of a file that lies in the cloud: whoever asks for it now has the file downloaded anyway."""
        facts = read_facts(key.path)
        with self._refreshing:
            self._index.remember(key, facts)
            self._settled = None
        self.refresh()

    def _read(self, listing: Listing) -> None:
        """Publish `listing`, with the headers of new files read."""
        facts: dict[AdapterKey, HeaderFacts] = {}
        unread, away = [], set()
        for listed in chain(listing.files, listing.shadowed):
            key = AdapterKey(listed.path, listed.size_bytes, listed.mtime_ns)
            known = self._index.get(key) if _has_header(listed) else HeaderFacts()
            if known is None and listed.in_cloud:
                # A library that lies in the cloud would be downloaded for its headers.
                away.add(key)
                known = HeaderFacts()
            if known is None:
                unread.append(key)
            else:
                facts[key] = known
        if len(unread) > _NAMES_FIRST_FILES:
            self._publish(listing, facts, away)
        facts.update(self._read_headers(unread))
        absent = tuple(os.path.join(folder, "") for folder in listing.absent_folders)
        self._index.retain(lambda key: key in facts or os.path.join(key.path, "").startswith(absent))
        self._index.save()
        self._publish(listing, facts, away)
        # What could not be opened is the same file when it can be: equal listings would not tell.
        self._settled = None if self._snapshot.doubtful else listing

    def _read_headers(self, keys: Sequence[AdapterKey]) -> Iterator[tuple[AdapterKey, HeaderFacts]]:
        # Daemons: at the end of the process nobody waits for a thousand headers, or for one on a share that is gone.
        readers = DaemonPool(_READERS, "warmstack-headers")
        try:
            for start in range(0, len(keys), _BATCH_FILES):
                for key, facts in _read_batch(readers, keys[start : start + _BATCH_FILES]):
                    self._index.remember(key, facts)
                    yield key, facts
                self._index.save()
        finally:
            readers.close()
        readers.join(_JOIN_S)

    def _publish(self, listing: Listing, facts: Mapping[AdapterKey, HeaderFacts], away: Set[AdapterKey]) -> None:
        files = tuple(_lora_file(listed, facts) for listed in listing.files)
        shadowed = tuple(_lora_file(listed, facts) for listed in listing.shadowed)
        unread = frozenset(file.key for file in chain(files, shadowed) if file.key not in facts)
        doubtful = frozenset(key for key, fact in facts.items() if not fact.is_lasting)
        left_away = frozenset(away)
        content = (files, shadowed, unread, doubtful, left_away, *listing[2:5])
        if content == self._content:
            return
        located = zip(chain(listing.files, listing.shadowed), chain(files, shadowed), strict=True)
        names = NameIndex(
            files,
            shadowed=shadowed,
            real_paths=((listed.real_path, file) for listed, file in located),
            folders=listing.folders,
            file_links=listing.file_links,
            folder_links=listing.folder_links,
        )
        self._content = content
        self._snapshot = CatalogSnapshot(files, self._snapshot.revision + 1, unread, doubtful, left_away, names)


def _read_batch(readers: DaemonPool, keys: Sequence[AdapterKey]) -> Iterator[tuple[AdapterKey, HeaderFacts]]:
    reads = [readers.submit(partial(read_facts, key.path)) for key in keys]
    try:
        for key, read in zip(keys, reads, strict=True):
            yield key, read.result()
    finally:
        for read in reads:
            read.cancel()  # of what nobody waits for any more, what has not begun


def _lora_file(listed: ListedFile, facts: Mapping[AdapterKey, HeaderFacts]) -> LoraFile:
    found = facts.get(AdapterKey(listed.path, listed.size_bytes, listed.mtime_ns), _UNREAD)
    folder = folder_category(listed.name)
    return LoraFile(
        name=listed.name,
        path=listed.path,
        size_bytes=listed.size_bytes,
        mtime_ns=listed.mtime_ns,
        category=folder.name or found.category,
        category_evidence=folder.evidence or found.category_evidence,
        base_model=found.base_model,
        base_model_evidence=found.base_model_evidence,
        alias=found.alias,
        hashes=found.hashes,
        rank=found.rank,
        problem=found.problem,
    )


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False  # one of them has just gone: a scan tells


def _has_header(listed: ListedFile) -> bool:
    return listed.path.lower().endswith(SAFETENSORS_SUFFIXES)


def _matches(name: str, glob: str) -> bool:
    if "/" not in glob:
        name = name.rpartition("/")[2]
    return fnmatchcase(name, glob) or fnmatchcase(os.path.splitext(name)[0], glob)
