"""What `warmstack.prefetch` offers is there, and costs nothing until it is asked for."""

from __future__ import annotations

import subprocess
import sys

import warmstack.prefetch as prefetch


def test_every_exported_name_exists_and_is_listed() -> None:
    assert prefetch.__all__ == sorted(prefetch.__all__, key=lambda name: (not name[0].isupper(), name))
    assert set(prefetch.__all__) == set(dir(prefetch)) == set(prefetch._HOMES)
    for name in prefetch.__all__:
        assert getattr(prefetch, name).__name__ == name


def test_the_whole_room_imports_without_torch_and_without_asking_twice() -> None:
    code = (
        "import sys, warmstack.prefetch as p\n"
        "assert not [m for m in sys.modules if m.startswith('warmstack.prefetch.')]\n"
        "[getattr(p, name) for name in p.__all__]\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
        "import warmstack.prefetch.references.prompt as module\n"
        "assert callable(module.references)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
