"""WarmStack: LoRAs that are warm before their job's turn, in ComfyUI and in diffusers.

Imports nothing on purpose: ComfyUI, pip, pytest and mypy each import this file under another name, and an import
of our own (or of the host) here would break at least one of them.
"""

WEB_DIRECTORY = "./web"

__version__ = "0.1.0"


async def comfy_entrypoint():  # type: ignore[no-untyped-def]  # the return type lives in the host, which is not always there
    from .nodes.server.host_version import require_host

    require_host()
    from .nodes.extension import WarmStackExtension

    return WarmStackExtension()
