"""Interruption: Ctrl-C while a queue runs."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

STATUS = 130
"""What a shell gives to a command that Ctrl-C has ended: 128 + SIGINT."""

_SAID = b"\nInterrupted: the request under way is finished and reported. Ctrl-C again ends at once.\n"
_SHOW_CURSOR = b"\x1b[?25h"


class Interruption:
    """Between `with` and its end, the first Ctrl-C makes `asked` true and nothing else; the second ends the process at
    once, with `STATUS`. Where it is ignored (a background job of a shell) it stays so."""

    def __init__(self) -> None:
        self.asked = False
        self._taken = False

    def __enter__(self) -> Interruption:
        # Python leaves signals to the main thread.
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._taken = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._taken:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Runs in the middle of whatever the main thread does, which may be to print."""
        if self.asked:
            if os.isatty(1):
                os.write(1, _SHOW_CURSOR)
            # A thread computes; leaving by an exception would wait for it.
            os._exit(STATUS)
        self.asked = True
        os.write(2, _SAID)
