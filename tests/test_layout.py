"""The repository root is the package: what pip installs, what ComfyUI clones, and how modules may import each other."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PYTHON_ROOMS = ("loaders", "lora", "prefetch", "nodes", "worker")
DATA_ROOMS = ("web", "locales", "example_workflows")
NOT_SHIPPED = ("tests", "scripts", "benchmarks", "docs", "build", "dist")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources() -> Iterator[Path]:
    for room in PYTHON_ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def test_packages_are_the_folders() -> None:
    """A folder that is missing from the list works from a clone and fails from a wheel."""
    folders = {path.parent for path in sources()}
    modules = {".".join(("warmstack", *folder.relative_to(ROOT).parts)) for folder in folders}
    data = {f"warmstack.{room}" for room in DATA_ROOMS}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == {"warmstack"} | modules | data


def test_every_python_folder_is_a_package() -> None:
    assert [str(path.parent) for path in sources() if not (path.parent / "__init__.py").is_file()] == []


def test_the_root_module_is_the_only_one_at_the_root() -> None:
    """setuptools would ship any other as `warmstack.<name>`, and pytest would run a conftest from ComfyUI's folder."""
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


def test_the_root_module_imports_nothing_at_import_time() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)] == []


class Wheel(NamedTuple):
    names: set[str]
    said: str
    """By the build, to whoever installs."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """From a copy: a build leaves its folders in the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "demo-output", "node_modules", "build", "dist")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    build = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    done = subprocess.run([*build, str(folder), str(folder / "source")], check=True, capture_output=True, text=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return Wheel(set(archive.namelist()), done.stdout + done.stderr)


@pytest.fixture
def wheel(built: Wheel) -> set[str]:
    """Names in the wheel."""
    return built.names


def test_the_build_does_not_warn_of_folders_without_modules(built: Wheel) -> None:
    """`make demo` begins with a build: a page for each folder of web/ and locales/ would be the first that it shows."""
    assert "is absent from the `packages` configuration" not in built.said


def test_the_wheel_has_every_module(wheel: set[str]) -> None:
    assert {f"warmstack/{path.relative_to(ROOT).as_posix()}" for path in sources()} <= wheel
    assert {"warmstack/__init__.py", "warmstack/py.typed"} <= wheel


def test_the_wheel_has_the_front_end_its_texts_and_the_workflows(wheel: set[str]) -> None:
    files = (path for room in DATA_ROOMS for path in (ROOT / room).rglob("*") if path.is_file())
    shipped = {f"warmstack/{path.relative_to(ROOT).as_posix()}" for path in files if not path.name.startswith(".")}
    assert shipped <= wheel
    assert any(name.startswith("warmstack/web/") for name in shipped)


def test_the_wheel_has_nothing_else(wheel: set[str]) -> None:
    assert [name for name in wheel if name.startswith(tuple(f"warmstack/{room}/" for room in NOT_SHIPPED))] == []
    assert {name.split("/")[0] for name in wheel if ".dist-info" not in name} == {"warmstack"}


def test_our_modules_are_imported_relatively() -> None:
    """ComfyUI owns `nodes`, puts comfy/ first on sys.path, and loads this package under a path as its name."""
    ours = {*PYTHON_ROOMS, "warmstack"}
    wrong = [f"{path.relative_to(ROOT)}:{line}" for path in sources() for line in _absolute(path, ours)]
    assert wrong == []


def _absolute(path: Path, names: set[str]) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] in names for alias in node.names):
            yield node.lineno
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in names:
            yield node.lineno


def test_the_node_pack_requires_no_torch_and_nothing_heavy() -> None:
    """A pack that pins torch replaces the user's CUDA build."""
    required = {name.split(">")[0].split("=")[0].strip() for name in PYPROJECT["project"]["dependencies"]}
    assert required <= {"aiofiles", "platformdirs", "psutil", "pydantic"}


def test_comfyui_manager_installs_what_pip_would() -> None:
    """The Manager reads requirements.txt and nothing else."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == PYPROJECT["project"]["dependencies"]


def test_what_is_pinned_covers_what_is_asked_for() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = {_normal(line.split("==")[0]) for line in pinned if "==" in line}
    asked = [*PYPROJECT["project"]["dependencies"]]
    for extra in PYPROJECT["project"]["optional-dependencies"].values():
        asked += extra
    assert {_normal(requirement.split(">")[0].split("=")[0]) for requirement in asked} <= names


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-")
