from __future__ import annotations

import pkgutil
import re
import subprocess
import sys

import pytest

import warmstack.loaders

TORCH_FREE = ("read_header", "read_metadata", "resident_bytes", "warm_file", "drop_file", "RateLimit", "DeviceMap")
BLOCKED = ("torch", "safetensors", "numpy", "comfy", "folder_paths", "diffusers", "peft", "transformers", "gguf")


def test_headers_and_the_page_cache_import_without_torch():
    code = f"""
import sys
for name in {BLOCKED}:
    sys.modules[name] = None
import warmstack.loaders as loaders
for name in {TORCH_FREE}:
    getattr(loaders, name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_loads_before_it_is_used():
    code = "import sys, warmstack.loaders; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_names_are_listed():
    assert dir(warmstack.loaders) == warmstack.loaders.__all__


def test_every_module_is_on_the_map():
    text = warmstack.loaders.__doc__ or ""
    modules = [module.name for module in pkgutil.iter_modules(warmstack.loaders.__path__)]
    assert [name for name in modules if not re.search(rf"\b{name}\b", text)] == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'warp'"):
        warmstack.loaders.warp  # noqa: B018
