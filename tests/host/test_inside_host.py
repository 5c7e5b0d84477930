"""Our patches and nodes against the host's own code, in the host's own process."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hostkit.server import HostInstall, make_base_directory

_HERE = Path(__file__).parent
_MODULES = ("checks_patching", "checks_nodes", "checks_models")
_CHECKS = [
    (module, node.name)
    for module in _MODULES
    for node in ast.parse((_HERE / f"{module}.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]


@pytest.fixture(scope="module")
def outcomes(install: HostInstall, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """Every check of one module in one process: importing the host takes longer than most of them."""

    @cache
    def run(module: str) -> dict[str, str]:
        base = make_base_directory(tmp_path_factory.mktemp(module), with_pack=False, with_test_nodes=False)
        command = [str(install.python), str(_HERE / "inside_host.py"), module, str(base)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=install.root, env=environment, timeout=110)
        assert done.returncode == 0, done.stderr[-4000:]
        results: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return results

    return run


@pytest.mark.parametrize(("module", "check"), _CHECKS, ids=[check for _, check in _CHECKS])
def test_in_the_host(outcomes: Callable[[str], dict[str, str]], module: str, check: str) -> None:
    assert outcomes(module)[check] == ""
