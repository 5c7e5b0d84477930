"""What lies in the LoRA folders: names, sizes and times from directory listings alone; no file is opened.

As in the host, folders form one name space: below each folder a file is called by its relative path, and of two files
of one name that in the earlier folder counts. Symlinks are followed, but every real directory is walked once, so links
that form a loop end, and a file that is reachable twice is one file with two names.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

EXTENSIONS = frozenset({".safetensors", ".sft", ".pt", ".pt2", ".pth", ".bin", ".ckpt", ".pkl"})
"""What the host lists as a LoRA. All but the first two are pickles."""

_SKIPPED_FOLDERS = frozenset({".git"})
_RECALLED = 0x1000 | 0x40000 | 0x400000
"""Windows: FILE_ATTRIBUTE_OFFLINE, _RECALL_ON_OPEN, _RECALL_ON_DATA_ACCESS; OneDrive sets them on what it has freed."""
_DATALESS = 0x40000000
"""macOS: SF_DATALESS, iCloud's."""


class ListedFile(NamedTuple):
    """One file as a directory listing shows it."""

    name: str
    """Path below its folder, with `/`."""
    path: str
    real_path: str
    size_bytes: int
    mtime_ns: int
    in_cloud: bool = False
    """Only its name is on this machine: to read a byte of it is to download it."""


class Listing(NamedTuple):
    """One walk over all folders. Two equal listings mean that nothing changed."""

    files: tuple[ListedFile, ...] = ()
    """One entry per real file, sorted by name; names are unique."""
    shadowed: tuple[ListedFile, ...] = ()
    """Files whose name an earlier folder took; their path is the only way to them."""
    folders: tuple[str, ...] = ()
    file_links: tuple[tuple[str, str], ...] = ()
    """(other path, path in `files`) of files that are reachable twice."""
    folder_links: tuple[tuple[str, str], ...] = ()
    """(other path, path that was walked) of directories that are reachable twice; both end in a separator."""
    absent_folders: tuple[str, ...] = ()
    """Folders that cannot be listed at present, and links that lead nowhere: an unmounted disk, perhaps."""


def list_files(folders: Iterable[str]) -> Listing:
    """Walk `folders`, the first of which wins where names collide."""
    roots = tuple(dict.fromkeys(os.path.abspath(folder) for folder in folders))
    walk = _Walk()
    for root in roots:
        walk.add(root)
    return walk.listing(roots)


class _Walk:
    def __init__(self) -> None:
        self._files: dict[str, ListedFile] = {}
        self._file_at: dict[str, str] = {}
        self._folder_at: dict[str, str] = {}
        self._shadowed: list[ListedFile] = []
        self._file_links: list[tuple[str, str]] = []
        self._folder_links: list[tuple[str, str]] = []
        self._absent: list[str] = []

    def add(self, folder: str) -> None:
        # Links wait until everything real below the folder has its name.
        real, linked = deque([("", folder)]), deque[tuple[str, str]]()
        linked_files: list[tuple[str, os.DirEntry[str], str]] = []
        while real or linked:
            prefix, path = (real or linked).popleft()
            real_path = os.path.realpath(path)
            if self._was_walked(path, real_path):
                continue
            for entry in self._entries(path):
                name = prefix + entry.name
                if entry.is_dir():
                    (linked if entry.is_symlink() else real).append((f"{name}/", entry.path))
                elif entry.is_symlink():
                    linked_files.append((name, entry, os.path.realpath(entry.path)))
                else:
                    self._add_file(name, entry, os.path.join(real_path, entry.name))
        for name, entry, target in linked_files:
            self._add_file(name, entry, target)

    def listing(self, folders: tuple[str, ...]) -> Listing:
        files = tuple(self._files[name] for name in sorted(self._files))
        links = tuple(self._file_links), tuple(self._folder_links)
        return Listing(files, tuple(self._shadowed), folders, *links, tuple(self._absent))

    def _was_walked(self, path: str, real_path: str) -> bool:
        """True when the directory was walked before, by this path or another."""
        identity = os.path.normcase(real_path)
        if identity not in self._folder_at:
            self._folder_at[identity] = path
            return False
        first = self._folder_at[identity]
        if first != path:
            self._folder_links.append((os.path.join(path, ""), os.path.join(first, "")))
        return True

    def _entries(self, path: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            self._absent.append(path)
            return
        for entry in found:
            if _wanted(entry):
                yield entry
            elif entry.is_symlink() and not os.path.exists(entry.path):
                self._absent.append(entry.path)

    def _add_file(self, name: str, entry: os.DirEntry[str], real_path: str) -> None:
        try:
            stat = entry.stat()
        except OSError:
            return  # vanished since the listing
        listed = ListedFile(name, entry.path, real_path, stat.st_size, stat.st_mtime_ns, _is_in_cloud(stat))
        identity = os.path.normcase(real_path)
        if identity in self._file_at:
            self._file_links.append((entry.path, self._file_at[identity]))
        elif name in self._files:
            self._shadowed.append(listed)
        else:
            self._files[name] = listed
            self._file_at[identity] = entry.path


def _wanted(entry: os.DirEntry[str]) -> bool:
    try:
        if entry.is_dir():
            return entry.name not in _SKIPPED_FOLDERS
        return os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.is_file()
    except OSError:
        return False  # a link that points to itself


def _is_in_cloud(stat: os.stat_result) -> bool:
    return bool(getattr(stat, "st_file_attributes", 0) & _RECALLED or getattr(stat, "st_flags", 0) & _DATALESS)
