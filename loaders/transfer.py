"""DeviceTransfer: host tensors, or a file, to a device through a ring of pinned slots, one device buffer for all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from types import TracebackType
from typing import NamedTuple

import torch

from .cancelling import Cancelled, never
from .errors import SafetensorsLoadError
from .files.header import SafetensorsHeader, read_header
from .reading.filling import Pace
from .reading.flat_views import specs_of_header
from .reading.opened import open_raw, require_stamp
from .reading.views import Buffer
from .system.kernel import cores
from .upload.copy_device import CopyDevice, CopyEvent, Fence
from .upload.sending import Sending
from .upload.staging_ring import StagingRing
from .upload.upload_layout import lay_out
from .upload.upload_source import FileSource, UploadSource

DEFAULT_PINNED_BYTES = 128 << 20
_MOST_FILLERS = 8
"""One thread copies out of memory or the page cache at 5 to 12 GB/s, the link takes 25 to 55."""
_SLOTS = 16
"""Each filler has one, the bus has one, and the rest lets both be late."""
_LEAST_SLOT_BYTES = 64 << 10


class Staging(NamedTuple):
    """How a budget of pinned memory is cut into slots."""

    slots: int
    slot_bytes: int


def staging_of(pinned_bytes: int) -> Staging:
    """At most `pinned_bytes`, a power of two of them, since torch pins no other sizes. With less than one small slot,
    one small slot."""
    whole_bytes = 1 << max(pinned_bytes, _LEAST_SLOT_BYTES).bit_length() - 1
    slots = max(1, min(_SLOTS, whole_bytes // _LEAST_SLOT_BYTES))
    return Staging(slots, whole_bytes // slots)


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """What was sent, perhaps still on its way. One surviving tensor keeps the whole device buffer."""

    nbytes: int
    """Of the device buffer; 0 when there was no room for one."""
    reasons: tuple[str, ...]
    """What did not go as it should: memory that could not be pinned, a device without room. Empty as a rule."""
    _tensors: Mapping[str, torch.Tensor]
    buffer: torch.Tensor | None
    """(nbytes,) uint8. Its storage is alive exactly as long as any of the tensors."""
    _event: CopyEvent | None

    @property
    def on_device(self) -> bool:
        return self.buffer is not None

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
        if self._event is not None and self.buffer is not None:
            self._event.order(self.buffer)
        return self._tensors

    def order(self) -> Fence | None:
        """`use`, for who keeps `buffer` until the stream is through with it, which the answer tells: the memory can
        then go to the next upload at once. Who drops it earlier has it overwritten under the stream."""
        return None if self._event is None else self._event.order(None)


class DeviceTransfer:
    """Uploads to `device`. The staging memory, `slots` times `slot_bytes` (or what `staging_of` makes of the default),
    is pinned once, by the first upload, and kept until `release`. Thread-safe; the uploads of several threads share the
    slots and take the streams in turns.

    While a slot is being copied, the next ones are filled, by up to `fillers` threads: half the cores, at most 8, if
    nobody says otherwise. Memory that cannot be pinned is replaced by pageable memory, which is slower and says so in
    `Upload.reasons`."""

    def __init__(
        self,
        device: CopyDevice,
        *,
        slots: int | None = None,
        slot_bytes: int | None = None,
        fillers: int | None = None,
    ) -> None:
        default = staging_of(DEFAULT_PINNED_BYTES)
        self._device = device
        self._slots = default.slots if slots is None else slots
        self._slot_bytes = default.slot_bytes if slot_bytes is None else slot_bytes
        self._fillers = _default_fillers() if fillers is None else fillers
        if self._slots < 1 or self._slot_bytes < 1 or self._fillers < 1:
            raise ValueError(
                f"{slots} slots of {slot_bytes} bytes with {fillers} fillers hold nothing; use at least one of each"
            )
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
    def device(self) -> torch.device:
        return self._device.device

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
        cancelled: Cancelled | None = None,
    ) -> Upload:
        """Send `tensors`, all on the CPU; returns when the last copy is queued, and needs the host's tensors no more.

        `buffer` is the memory that they are views of (`TensorFile.buffer`): the host's bytes are then gathered with a
        few calls per slot instead of a few per tensor. On the device each tensor starts at a multiple of 16 bytes,
        wherever it stood. Without room there the tensors stay on the host, and `reasons` says so.

        Raises LoadCancelledError between two slots once `cancelled()` is true, and SafetensorsLoadError when the device
        refuses a copy, both after what was queued is complete; `name` is for these. MemoryError when the host has not
        even pageable memory for the slots."""
        upload = self.send(name, lay_out(tensors, buffer), cancelled=cancelled)
        return upload if upload.on_device or not upload.reasons else replace(upload, _tensors=tensors)

    def upload_file(
        self,
        path: str | os.PathLike[str],
        *,
        header: SafetensorsHeader | None = None,
        pace: Pace | None = None,
    ) -> Upload:
        """Send all tensors of a safetensors file, read straight into the slots. On the device they are aligned as they
        are in the file: to their elements.

        Without room there, the upload has no tensors: read the file into host memory. Raises as `upload` and
        `read_tensors` do."""
        header = read_header(path) if header is None else header
        specs = specs_of_header(header)
        if specs is None:
            raise SafetensorsLoadError(header.path, "holds types that cannot be sent as they are; use another strategy")
        pace = pace or Pace()
        with open_raw(header.path) as file:
            require_stamp(header.path, file, header.stamp)
            source = FileSource(header.path, file, header.data_start, header.data_bytes, specs, pace)
            upload = self.send(header.path, source, cancelled=pace.ask)
            require_stamp(header.path, file, header.stamp)
        return upload

    def send(self, name: str, source: UploadSource, *, cancelled: Cancelled | None = None) -> Upload:
        """`upload` for any source. Without room on the device, the upload has no tensors. A source need not outlive the
        call."""
        if not source.nbytes:
            nothing = torch.empty(0, dtype=torch.uint8, device=self._device.device)
            return Upload(0, (), source.views(nothing), None, None)
        stream = next(self._turns) % self._device.streams
        with self._using_staging() as staging:
            reasons = (staging.reason,) if staging.reason else ()
            try:
                target = self._device.allocate(source.nbytes, stream)
            except MemoryError as error:
                reason = f"no room for {source.nbytes} bytes on {self._device.device}, left on the host: {error}"
                return Upload(0, (*reasons, reason), {}, None, None)
            threads = min(self._fillers, self._slots) if source.is_shared else 1
            sending = Sending(name, source, target, staging.ring, self._device, stream)
            event = sending.run(threads, staging.pool if threads > 1 else None, cancelled or never)
        return Upload(source.nbytes, reasons, source.views(target), target, event)

    def release(self) -> None:
        """Give the staging memory back, at once or when the running uploads are through. The next one pins again."""
        with self._lock:
            staging, self._staging = self._staging, None
            idle = staging is not None and not staging.users
        if staging is not None and idle:
            staging.close()

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
                staging.close()

    def _make_staging(self) -> _Staging:
        nbytes = self._slots * self._slot_bytes
        try:
            memory, reason = self._device.pin(nbytes), ""
        except MemoryError as error:
            memory = torch.frombuffer(bytearray(nbytes), dtype=torch.uint8)
            reason = f"copied from pageable memory, since {nbytes} bytes could not be pinned: {error}"
        pool = ThreadPoolExecutor(self._fillers - 1, "warmstack-upload") if self._fillers > 1 else None
        return _Staging(StagingRing(memory, self._slot_bytes), pool, reason)


def _default_fillers() -> int:
    return max(1, min(_MOST_FILLERS, cores() // 2))


@dataclass(slots=True, eq=False)
class _Staging:
    ring: StagingRing
    pool: ThreadPoolExecutor | None
    """Threads that fill slots beside the caller's; they start with the first upload that has use for them."""
    reason: str
    """Why it is not pinned, or ""."""
    users: int = 0

    def close(self) -> None:
        if self.pool is not None:
            # One of its own threads may be the one that closes.
            self.pool.shutdown(wait=False)
        self.ring.close()
