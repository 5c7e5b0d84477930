"""One real ComfyUI per test session, with this checkout as a custom node and the tiny models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostkit.client import HostClient
from hostkit.models import lora_path, write_models
from hostkit.server import HostInstall, HostServer, make_base_directory
from hostkit.tiny_lora import write_flux_lora, write_sd15_lora


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    missing = HostInstall.from_environment() is None
    for item in items:
        if here in item.path.parents:
            item.add_marker("host")
            if missing:
                item.add_marker(pytest.mark.skip(reason="needs a real ComfyUI: set COMFYUI_PATH and COMFYUI_PYTHON"))


@pytest.fixture(scope="session")
def install() -> HostInstall:
    found = HostInstall.from_environment()
    assert found is not None, "the tests are skipped before this"
    return found


def write_library(base: Path) -> None:
    """A small library in three folders, every naming family, and two files that answer to one stem."""
    for seed, name in enumerate(("styles/ink.safetensors", "styles/oil.safetensors", "characters/mira.safetensors")):
        write_sd15_lora(lora_path(base, name), seed=10 + seed)
    write_sd15_lora(lora_path(base, "styles/ldm.safetensors"), seed=20, naming="ldm", text_encoder=False)
    write_sd15_lora(lora_path(base, "other/ink.safetensors"), seed=21)
    for seed in range(6):
        write_flux_lora(lora_path(base, f"flux/native{seed}.safetensors"), seed=30 + seed)
    for seed in range(2):
        write_flux_lora(lora_path(base, f"flux/diffusers{seed}.safetensors"), seed=40 + seed, naming="diffusers")


@pytest.fixture(scope="session")
def host_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = make_base_directory(tmp_path_factory.mktemp("comfyui"))
    write_models(base)
    write_library(base)
    return base


@pytest.fixture
def own_base(host_base: Path, tmp_path: Path) -> Path:
    """Another base directory on the same models, for a test that needs a server of its own."""
    make_base_directory(tmp_path)
    shutil.rmtree(tmp_path / "models")
    (tmp_path / "models").symlink_to(host_base / "models", target_is_directory=True)
    return tmp_path


@pytest.fixture(scope="session")
def host(install: HostInstall, host_base: Path) -> Iterator[HostServer]:
    """The shared server. A test that changes its settings puts them back."""
    with HostServer(install, host_base) as server:
        yield server


@pytest.fixture
def client(host: HostServer) -> HostClient:
    return host.client
