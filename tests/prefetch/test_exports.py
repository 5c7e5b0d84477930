"""What `warmstack.prefetch` offers is there, and costs nothing until it is asked for."""

from __future__ import annotations

import subprocess
import sys


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
