"""Whatever happens on disk, a name means to LoraCatalog the very file that it means to the host."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from warmstack.lora.library.catalog import Found, LoraCatalog
from warmstack.lora.library.scan import EXTENSIONS


def host_names(folders: list[Path]) -> dict[str, Path]:
    """What the host lists, and the file that it opens for each name; links followed four deep."""
    found: dict[str, Path] = {}
    for folder in folders:
        pending = [(folder, 0)]
        while pending:
            path, depth = pending.pop()
            for entry in sorted(path.iterdir()) if path.is_dir() else ():
                if entry.is_dir() and depth < 4:
                    pending.append((entry, depth + 1))
                elif entry.is_file() and entry.suffix in EXTENSIONS:
                    found.setdefault(entry.relative_to(folder).as_posix(), entry)
    return found


FOLDERS = st.sampled_from(["one", "two", "one/sub", "two/sub", "two/sub/deep", "one/deep"])
FILES = st.sampled_from(["x.pt", "y.pt", "z.safetensors"])


class ChangingDisk(RuleBasedStateMachine):
    """A catalog, and whatever may happen below its folders."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.folders = [self.root / "one", self.root / "two"]
        self.catalog = self._opened()
        self.serial = 0

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @rule(folder=FOLDERS, name=FILES)
    def write(self, folder: str, name: str) -> None:
        path = self.root / folder
        if self._is_makable(path):
            path.mkdir(parents=True, exist_ok=True)
            self.serial += 1
            target = path / name
            if not target.is_symlink():
                target.write_bytes(bytes(self.serial))

    @rule(folder=FOLDERS, name=FILES)
    def delete(self, folder: str, name: str) -> None:
        path = self.root / folder / name
        if os.path.lexists(path):  # not below a folder that links to itself
            path.unlink()

    @rule(folder=FOLDERS, name=st.sampled_from(["link", "sub", "deep"]), to=FOLDERS)
    def link_folder(self, folder: str, name: str, to: str) -> None:
        path = self.root / folder / name
        if path.parent.is_dir() and not os.path.lexists(path):
            path.symlink_to(self.root / to)

    @rule(folder=FOLDERS, name=FILES, to=FOLDERS, file=FILES)
    def link_file(self, folder: str, name: str, to: str, file: str) -> None:
        path = self.root / folder / name
        if path.parent.is_dir() and not os.path.lexists(path):
            path.symlink_to(self.root / to / file)

    @rule(folder=FOLDERS)
    def remove_folder(self, folder: str) -> None:
        path = self.root / folder
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)

    @rule()
    def restart(self) -> None:
        self.catalog = self._opened()

    def _opened(self) -> LoraCatalog:
        folders = [str(folder) for folder in self.folders]
        return LoraCatalog(lambda: folders, index_path=self.root / "index.json")

    def _is_makable(self, path: Path) -> bool:
        return all(part.is_dir() or not os.path.lexists(part) for part in (path, *path.parents))


class CatalogAgainstHost(ChangingDisk):
    """After any change on disk every name that the host offers means the very file that the host would open."""

    @invariant()
    def every_name_means_the_host_s_file(self) -> None:
        before = self.catalog.snapshot
        snapshot = self.catalog.refresh()
        assert (snapshot.files == before.files) or snapshot.revision > before.revision
        expected = host_names(self.folders)
        for name, path in expected.items():
            match = self.catalog.resolve(name)
            assert isinstance(match, Found), name
            assert os.path.samefile(match.file.path, path), name
            assert match.file.size_bytes == path.stat().st_size
        assert {file.name for file in snapshot.files} <= set(expected)
        real = [os.path.realpath(file.path) for file in snapshot.files]
        assert len(set(real)) == len(real)


class FindAgainstHost(ChangingDisk):
    """The same of every name that is asked for, without anybody refreshing the catalog in between."""

    @invariant()
    def every_name_finds_the_host_s_file(self) -> None:
        for name, path in host_names(self.folders).items():
            file = self.catalog.find(name)
            assert os.path.samefile(file.path, path), name
            assert file.size_bytes == path.stat().st_size


CatalogAgainstHost.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestCatalogAgainstHost = CatalogAgainstHost.TestCase

FindAgainstHost.TestCase.settings = CatalogAgainstHost.TestCase.settings
TestFindAgainstHost = FindAgainstHost.TestCase
