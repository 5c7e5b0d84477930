"""A scan does not keep its process alive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCANNING = """
import sys, threading
import warmstack.lora.library.catalog as catalog

reached = threading.Event()

def stuck(path):
    reached.set()
    threading.Event().wait()

catalog.read_facts = stuck
library = catalog.LoraCatalog(lambda: [sys.argv[1]])
threading.Thread(target=library.refresh, daemon=True).start()
print("reading" if reached.wait(20) else "never")
"""


def test_a_process_ends_while_a_header_cannot_be_read(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.safetensors").write_bytes(bytes(10))
    command = [sys.executable, "-c", SCANNING, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "reading"), ended.stderr
