"""Startup: the pack tied to a server that starts, as far as that can be done."""

from __future__ import annotations

import logging

from .runtime import Runtime, set_runtime

logger = logging.getLogger("warmstack")


def start() -> None:
    """Build the runtime and tie it to the server. Call on the server's loop. Whatever fails, the nodes go on loading
    LoRAs by themselves and the host runs on: one line in the log says so."""
    try:
        # Here, so that a fault in either costs the prefetch and not the nodes.
        from .server.host import ComfyHost
        from .service import Service

        host = ComfyHost()
        runtime = Runtime(host)
        set_runtime(runtime)
        Service(runtime, host).attach()
    except Exception as error:
        logger.warning(
            "WarmStack: LoRAs load on demand only, nothing is read ahead: %s: %s", type(error).__name__, error
        )
        logger.debug("start failed", exc_info=True)
