"""Python reads this as it starts, so that processes which tests start have the simulated GPU too."""

try:
    import operators
    import torch_cuda

    torch_cuda.install()
    _kept = operators.install()
except Exception as error:
    # Python would go on without it.
    raise SystemExit(f"the simulated GPU does not start: {error!r}") from error
