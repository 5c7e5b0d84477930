"""DeviceTransfer: host tensors to a device through a ring of pinned slots, one device buffer for all of a file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from types import TracebackType

import torch

from .copy_device import CopyDevice, CopyEvent
from .errors import LoadCancelledError, SafetensorsLoadError
from .staging_ring import StagingRing
from .upload_layout import UploadLayout, lay_out
from .views import Buffer

DEFAULT_SLOTS = 3
"""One is being copied, one waits for the bus, one is being filled."""
DEFAULT_SLOT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """What was sent, perhaps still on its way. One surviving tensor keeps the whole device buffer."""

    nbytes: int
    """Of the device buffer; 0 when the tensors stayed on the host."""
    reasons: tuple[str, ...]
    """What did not go as it should: memory that could not be pinned, a device without room. Empty as a rule."""
    _tensors: Mapping[str, torch.Tensor]
    _buffer: torch.Tensor | None
    _event: CopyEvent | None

    @property
    def on_device(self) -> bool:
        return self._buffer is not None

    @property
    def done(self) -> bool:
        return self._event is None or self._event.done

    def wait(self) -> None:
        """Block this thread until every byte has arrived. Tensors for another stream still come from `use`."""
        if self._event is not None:
            self._event.wait()

    def use(self) -> Mapping[str, torch.Tensor]:
        """The tensors, for the caller's current stream: what it does with them happens after the copies, and their
        memory goes to nobody else before. Call it once on each stream that uses them; it does not block."""
        if self._event is not None and self._buffer is not None:
            self._event.order(self._buffer)
        return self._tensors


class DeviceTransfer:
    """Uploads to `device`. The staging memory, `slots` times `slot_bytes`, is pinned once, by the first upload, and
    kept until `release`. Thread-safe; the uploads of several threads share the slots and take the streams in turns.

    While a slot is being copied, the next one is filled. Memory that cannot be pinned is replaced by pageable memory,
    which is slower and says so in `Upload.reasons`."""

    def __init__(self, device: CopyDevice, *, slots: int = DEFAULT_SLOTS, slot_bytes: int = DEFAULT_SLOT_BYTES) -> None:
        if slots < 1 or slot_bytes < 1:
            raise ValueError(f"{slots} slots of {slot_bytes} bytes hold nothing; use at least one of one byte")
        self._device = device
        self._slots = slots
        self._slot_bytes = slot_bytes
        self._lock = threading.Lock()
        self._staging: _Staging | None = None
        self._turns = count()

    def __enter__(self) -> DeviceTransfer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def pinned_bytes(self) -> int:
        """Pinned memory that is kept for the next upload."""
        with self._lock:
            return 0 if self._staging is None or self._staging.reason else self._staging.ring.nbytes

    def upload(
        self,
        name: str,
        tensors: Mapping[str, torch.Tensor],
        *,
        buffer: Buffer | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Upload:
        """Send `tensors`, all on the CPU; returns when the last copy is queued, and needs the host's tensors no more.

        `buffer` is the memory that they are views of (`TensorFile.buffer`): the host's bytes are then gathered with a
        few calls per slot instead of a few per tensor. On the device each tensor starts at a multiple of 16 bytes,
        wherever it stood. Without room there the tensors stay on the host, and `reasons` says so.

        Raises LoadCancelledError between two slots once `cancelled()` is true, and SafetensorsLoadError when the device
        refuses a copy, both after what was queued is complete; `name` is for these. MemoryError when the host has not
        even pageable memory for the slots."""
        layout = lay_out(tensors, buffer)
        if not layout.nbytes:
            return Upload(0, (), layout.views(torch.empty(0, device=self._device.device)), None, None)
        stream = next(self._turns) % self._device.streams
        with self._using_staging() as staging:
            reasons = (staging.reason,) if staging.reason else ()
            try:
                target = self._device.allocate(layout.nbytes, stream)
            except MemoryError as error:
                reason = f"no room for {layout.nbytes} bytes on {self._device.device}, left on the host: {error}"
                return Upload(0, (*reasons, reason), tensors, None, None)
            event = self._send(name, layout, target, staging.ring, stream, cancelled)
        return Upload(layout.nbytes, reasons, layout.views(target), target, event)

    def release(self) -> None:
        """Give the staging memory back, at once or when the running uploads are through. The next one pins again."""
        with self._lock:
            staging, self._staging = self._staging, None
            idle = staging is not None and not staging.users
        if staging is not None and idle:
            staging.ring.close()

    def _send(
        self,
        name: str,
        layout: UploadLayout,
        target: torch.Tensor,
        ring: StagingRing,
        stream: int,
        cancelled: Callable[[], bool] | None,
    ) -> CopyEvent | None:
        event: CopyEvent | None = None
        try:
            for chunk in layout.chunks(ring.slot_bytes):
                if cancelled is not None and cancelled():
                    raise LoadCancelledError(name, "cancelled while it was being uploaded")
                with ring.slot() as slot:
                    chunk.gather(slot.memory)
                    part = target[chunk.start : chunk.start + chunk.nbytes]
                    event = slot.event = self._device.copy(part, slot.memory[: chunk.nbytes], stream)
        except BaseException as error:
            if event is not None:
                with suppress(RuntimeError):
                    event.wait()
            if isinstance(error, RuntimeError):
                cause = str(error).partition("\n")[0]
                raise SafetensorsLoadError(name, f"cannot go to {self._device.device}: {cause}") from error
            raise
        return event

    @contextmanager
    def _using_staging(self) -> Iterator[_Staging]:
        with self._lock:
            if self._staging is None:
                self._staging = self._make_staging()
            staging = self._staging
            staging.users += 1
        try:
            yield staging
        finally:
            with self._lock:
                staging.users -= 1
                abandoned = staging is not self._staging and not staging.users
            if abandoned:
                staging.ring.close()

    def _make_staging(self) -> _Staging:
        nbytes = self._slots * self._slot_bytes
        try:
            memory, reason = self._device.pin(nbytes), ""
        except MemoryError as error:
            memory = torch.frombuffer(bytearray(nbytes), dtype=torch.uint8)
            reason = f"copied from pageable memory, since {nbytes} bytes could not be pinned: {error}"
        return _Staging(StagingRing(memory, self._slot_bytes), reason)


@dataclass(slots=True, eq=False)
class _Staging:
    ring: StagingRing
    reason: str
    """Why it is not pinned, or ""."""
    users: int = 0
