"""The tests marked `gpu` on a GPU that is simulated; tests/simulated_gpu/README.md says what that shows.

python scripts/rehearse.py                    # all of them, then the upload benchmark at small sizes: `make rehearse`
python scripts/rehearse.py PYTEST_ARGUMENTS   # those
python scripts/rehearse.py --host             # ComfyUI on it: `make rehearse-host`

The exit status is 2 where there is nothing to simulate one with.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
SIMULATION = ROOT / "tests" / "simulated_gpu"
TESTS = ("tests/loaders", "tests/lora", "tests/worker")
HOST_TESTS = ("tests/host/test_on_gpu.py",)
COMPILER = os.environ.get("CXX", "c++")


def main() -> None:
    host = "--host" in sys.argv
    if reason := _refusal() or (_host_refusal() if host else ""):
        print(f"rehearse: {reason}; nothing was run", file=sys.stderr)
        sys.exit(2)
    environment = _environment(_built()) | ({"SIMULATED_GPU_FOR_COMFYUI": "1"} if host else {})
    given = [argument for argument in sys.argv[1:] if argument != "--host"]
    print("rehearse: on a SIMULATED GPU; nothing below was seen on a real one", flush=True)
    tests = [sys.executable, "-m", "pytest", "-p", "rehearsal", "-m", "gpu", "--timeout", "300"]
    status = subprocess.run([*tests, *(given or (HOST_TESTS if host else TESTS))], cwd=ROOT, env=environment).returncode
    if status == 0 and not given and not host:
        benchmark = [sys.executable, "benchmarks/transfer.py", "--rehearse"]
        # It checks what arrives. Its figures would be those of this CPU.
        status = subprocess.run(benchmark, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL).returncode
        print(f"rehearse: benchmarks/transfer.py ended with {status}")
    sys.exit(status)


def _refusal() -> str:
    if sys.platform != "linux":
        return "the simulated GPU's memory is Linux's"
    if torch.version.cuda or torch.version.hip:
        return f"torch {torch.__version__} has a GPU backend of its own; use a build for CPUs"
    if shutil.which(COMPILER) is None:
        return f"there is no C++ compiler {COMPILER!r}"
    return ""


def _host_refusal() -> str:
    python = os.environ.get("COMFYUI_PYTHON")
    if not python or "COMFYUI_PATH" not in os.environ:
        return "COMFYUI_PATH and COMFYUI_PYTHON are not set"
    ask = "import sys, torch; print(sys.implementation.cache_tag, torch.__version__)"
    has = subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout.strip()
    needs = f"{sys.implementation.cache_tag} {torch.__version__}"
    return "" if has == needs else f"COMFYUI_PYTHON has {has or 'no torch'}, and the simulated GPU is for {needs}"


def _built() -> Path:
    """The folder with the backend, compiled unless it was for this source and this torch."""
    source = hashlib.sha256((SIMULATION / "backend.cpp").read_bytes()).hexdigest()[:12]
    folder = ROOT / "build" / "simulated_gpu" / f"{sys.implementation.cache_tag}-torch-{torch.__version__}-{source}"
    library = folder / f"simulated_gpu_backend{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(".partial")
        print("rehearse: compiling the simulated GPU, about a minute", flush=True)
        if subprocess.run(_compilation(partial)).returncode:
            print(f"rehearse: the simulated GPU does not compile for torch {torch.__version__}", file=sys.stderr)
            sys.exit(2)
        partial.rename(library)
    return folder


def _compilation(target: Path) -> list[str]:
    home = Path(torch.__file__).parent
    includes = [home / "include", home / "include/torch/csrc/api/include", sysconfig.get_path("include")]
    return [
        COMPILER, "-O1", "-shared", "-fPIC", "-std=c++20", str(SIMULATION / "backend.cpp"), "-o", str(target),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        *(f"-I{folder}" for folder in includes),
        f"-L{home / 'lib'}", f"-Wl,-rpath,{home / 'lib'}", "-ltorch_python", "-ltorch", "-ltorch_cpu", "-lc10",
    ]  # fmt: skip


def _environment(backend: Path) -> dict[str, str]:
    path = [str(backend), str(SIMULATION), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONFAULTHANDLER": "1",
        "WARMSTACK_REQUIRE_GPU": "1",
    }


if __name__ == "__main__":
    main()
