"""Our patches against the host's own code, in the host's own process."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest
from hostkit.server import HostInstall, make_base_directory

_HERE = Path(__file__).parent
_CHECKS = [
    node.name
    for node in ast.parse((_HERE / "checks_patching.py").read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]


@pytest.fixture(scope="module")
def outcomes(install: HostInstall, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every check in one process: importing the host takes longer than all of them."""
    base = make_base_directory(tmp_path_factory.mktemp("patching"), with_pack=False, with_test_nodes=False)
    command = [str(install.python), str(_HERE / "inside_host.py"), "checks_patching", str(base)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=install.root, env=environment, timeout=110)
    assert done.returncode == 0, done.stderr[-4000:]
    results: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return results


@pytest.mark.parametrize("check", _CHECKS)
def test_in_the_host(outcomes: dict[str, str], check: str) -> None:
    assert outcomes[check] == ""
