"""What each part imports, proved in fresh interpreters with the forbidden modules blocked."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOST = ("comfy", "comfy_api", "comfy_execution", "folder_paths", "server", "execution", "nodes")
HEAVY = ("diffusers", "peft", "transformers", "accelerate", "matplotlib", "rich", "PIL")
CORE = ("loaders", "lora", "prefetch")
WITHOUT_TORCH = (
    "loaders.errors",
    "loaders.files.header",
    "loaders.system.page_cache",
    "loaders.system.rate_limit",
    "lora.library.catalog",
    "lora.errors",
    "lora.library.file",
    "lora.stacks.stack",
    "lora.stacks.tags",
    "prefetch.queue.job",
    "prefetch.planning.plan",
    "prefetch.references",
    "prefetch.settings",
    "worker.config",
    "worker.report",
    "worker.request",
)

BLOCKER = """
import builtins, sys
blocked = set({blocked!r})
real = builtins.__import__
def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and name.split(".")[0] in blocked:
        raise ImportError("blocked: " + name)
    return real(name, globals, locals, fromlist, level)
builtins.__import__ = guarded
"""


def run(code: str, *blocked: str) -> str:
    """What `code` prints in a fresh interpreter in which importing `blocked` fails."""
    script = BLOCKER.format(blocked=blocked) + code
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules_of(*rooms: str) -> list[str]:
    files = (path for room in rooms for path in sorted((ROOT / room).rglob("*.py")))
    names = (".".join(("warmstack", *path.relative_to(ROOT).with_suffix("").parts)) for path in files)
    return [name.removesuffix(".__init__") for name in names]


def test_the_root_imports_nothing_of_ours() -> None:
    shown = run("import sys, warmstack\nprint([name for name in sys.modules if name.startswith('warmstack.')])")
    assert shown.strip() == "[]"


def test_the_core_imports_without_a_host_and_without_diffusers() -> None:
    run(f"from importlib import import_module\nfor name in {modules_of(*CORE)}: import_module(name)", *HOST, *HEAVY)


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_planning_and_discovery_import_without_torch(module: str) -> None:
    shown = run(f"import sys, warmstack.{module}\nprint('torch' in sys.modules)", "torch", *HOST, *HEAVY)
    assert shown.strip() == "False"


@pytest.mark.parametrize("room", [*CORE, "worker"])
def test_public_names_exist_and_are_lazy(room: str) -> None:
    code = f"""
import sys, warmstack.{room} as room
assert 'torch' not in sys.modules, 'importing the package imported torch'
missing = [name for name in room.__all__ if not hasattr(room, name)]
assert not missing, missing
assert set(room.__all__) <= set(dir(room))
"""
    run(code, *HOST)


@pytest.mark.parametrize("room", [*CORE, "worker"])
def test_type_checkers_see_the_names_that_there_are(room: str) -> None:
    tree = ast.parse((ROOT / room / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {(node.module, alias.name) for node in imports for alias in node.names}
    package = import_module(f"warmstack.{room}")
    assert sorted(name for _, name in seen) == sorted(package.__all__)
    for module, name in seen:
        assert getattr(package, name) is getattr(import_module(f"warmstack.{room}.{module}"), name)


AS_COMFYUI_DOES = """
import importlib.util, sys, types
from pathlib import Path

for taken in ("nodes", "utils", "server", "execution", "folder_paths"):
    sys.modules[taken] = types.ModuleType(taken)
    sys.modules[taken].__path__ = []
folder = Path({folder!r})
name = str(folder).replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
assert module.WEB_DIRECTORY == "./web"
assert str(folder) not in sys.path
for part in {parts!r}:
    importlib.import_module(name + "." + part)
assert not hasattr(sys.modules["nodes"], "runtime")
assert not [known for known in sys.modules if known.split(".")[0] in ("loaders", "lora", "prefetch", "warmstack")]
print("loaded")
"""


@pytest.mark.parametrize("folder_name", ["comfyui-warmstack", "ComfyUI.Warm Stack-main"])
def test_comfyui_can_load_it_from_a_folder_of_any_name(folder_name: str, tmp_path: Path) -> None:
    """ComfyUI's own way: the module's name is the folder's path, and the host's names are taken."""
    folder = tmp_path / "custom_nodes" / folder_name
    folder.parent.mkdir()
    folder.symlink_to(ROOT, target_is_directory=True)
    parts = [name.removeprefix("warmstack.") for name in modules_of(*CORE)]
    # Nothing of ours may be importable by another route, or a wrong import would go unnoticed.
    hidden = "sys.meta_path = [f for f in sys.meta_path if 'warmstack' not in repr(f)]\n"
    assert run(hidden + AS_COMFYUI_DOES.format(folder=str(folder), parts=parts), *HEAVY).strip() == "loaded"
