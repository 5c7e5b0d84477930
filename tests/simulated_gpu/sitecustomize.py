"""Python reads this as it starts, so that processes which tests start have the simulated GPU too."""

import os

try:
    import operators
    import torch_cuda

    torch_cuda.install()
    _kept = operators.install()
    if os.environ.get("SIMULATED_GPU_FOR_COMFYUI"):
        import for_comfyui

        for_comfyui.install()
except Exception as error:
    # Python would go on without it.
    raise SystemExit(f"the simulated GPU does not start: {error!r}") from error
