"""One LoRA to the device: every way, and the slots, fillers and streams of ours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from warmstack.loaders import DeviceTransfer, TensorFile, Upload, read_tensors
from warmstack.loaders.reading.flat_views import specs_of_tensors
from warmstack.loaders.upload.upload_source import MemorySource

from .rig import Contenders, Rig

MODULES = 722
RANK = 32
WIDTH = 2400
STREAMS = (1, 2, 4)
THREADS = 4
FILLERS = (1, 2, 4, 8)
SLOT_MIB = (2, 4, 8)
SLOTS = (4, 8, 16)


class Lora:
    """2,166 tensors when scalars stand between the matrices, which makes every one of them start anywhere."""

    def __init__(self, path: Path, *, odd: bool, modules: int = MODULES) -> None:
        self.path = path
        tensors = {}
        for index in range(modules):
            name = f"lora_unet_input_blocks_{index}_1_transformer_blocks_0_attn1_to_k"
            tensors[f"{name}.lora_down.weight"] = torch.randn(RANK, WIDTH).half()
            tensors[f"{name}.lora_up.weight"] = torch.randn(WIDTH, RANK).half()
            if odd:
                tensors[f"{name}.alpha"] = torch.tensor(float(RANK)).half()
        save_file(tensors, path, metadata={"format": "pt"})
        self.file: TensorFile = read_tensors(path)
        specs = specs_of_tensors(self.file.tensors, self.file.buffer)
        assert specs is not None
        self._specs = specs

    @property
    def nbytes(self) -> int:
        return self.file.nbytes

    def resident(self, transfer: DeviceTransfer) -> Upload:
        """Memory -> slots -> device, as the shelf does it."""
        return transfer.send("lora", MemorySource(self.file.buffer, self._specs))

    def require_equal(self, upload: Upload, what: str) -> None:
        if upload.reasons:
            raise SystemExit(f"benchmarks/transfer.py: not what is to be measured: {'; '.join(upload.reasons)}")
        arrived = upload.use()
        if not all(torch.equal(arrived[key].cpu(), tensor) for key, tensor in self.file.tensors.items()):
            raise SystemExit(f"benchmarks/transfer.py: what was sent from {what} differs from the file")


def measure_ways(rig: Rig, lora: Lora, transfer: DeviceTransfer) -> dict[str, float]:
    """Seconds until every byte is there. "resident" and "file" are ours; "resident, every view" also makes all tensors;
    "gathered" moves each tensor to a multiple of 16 bytes on its way; "pageable" is one copy without pinned memory."""
    lora.require_equal(lora.resident(transfer), "memory")
    lora.require_equal(transfer.upload_file(lora.path), "the file")
    lora.require_equal(transfer.upload("lora", lora.file.tensors, buffer=lora.file.buffer), "memory, gathered")
    pinned, target = rig.pinned(lora.nbytes), torch.empty(lora.nbytes, dtype=torch.uint8, device=rig.device)
    flat = torch.frombuffer(lora.file.buffer, dtype=torch.uint8, count=lora.nbytes)
    contenders: Contenders = {
        "pinned copy": lambda: target.copy_(pinned, non_blocking=True),
        "pageable": lambda: target.copy_(flat),
        "each .to()": lambda: {key: tensor.to(rig.device) for key, tensor in lora.file.tensors.items()},
        "resident": partial(_send_resident, lora, transfer),
        "resident, every view": lambda: dict(lora.resident(transfer).use()),
        "file": partial(_send_file, lora, transfer),
        "gathered": lambda: transfer.upload("lora", lora.file.tensors, buffer=lora.file.buffer).use(),
    }
    return rig.medians_s(contenders)


def measure_staging(rig: Rig, lora: Lora) -> list[dict[str, float]]:
    """Bytes per second by fillers, slots and their size."""
    rows = []
    for fillers in FILLERS:
        for slots in SLOTS:
            for mib in SLOT_MIB:
                with DeviceTransfer(rig.copies(), slots=slots, slot_bytes=mib << 20, fillers=fillers) as transfer:
                    contenders: Contenders = {
                        "resident": partial(_send_resident, lora, transfer),
                        "file": partial(_send_file, lora, transfer),
                    }
                    median_s = rig.medians_s(contenders, 1 if rig.rehearsal else max(3, rig.rounds // 3))
                rates = {name: lora.nbytes / seconds for name, seconds in median_s.items()}
                rows.append({"fillers": fillers, "slots": slots, "slot_mib": mib, **rates})
    return rows


def measure_streams(rig: Rig, lora: Lora) -> dict[str, float]:
    """Bytes per second of several uploads at once, by number of streams."""
    transfers = {
        streams: DeviceTransfer(rig.copies(streams), slots=8 * THREADS, slot_bytes=4 << 20) for streams in STREAMS
    }
    with ThreadPoolExecutor(THREADS) as pool:
        contenders: Contenders = {
            str(streams): partial(_send_at_once, pool, lora, transfer) for streams, transfer in transfers.items()
        }
        median_s = rig.medians_s(contenders)
    for transfer in transfers.values():
        transfer.release()
    return {streams: THREADS * lora.nbytes / seconds for streams, seconds in median_s.items()}


def _send_resident(lora: Lora, transfer: DeviceTransfer) -> object:
    return lora.resident(transfer).use()


def _send_file(lora: Lora, transfer: DeviceTransfer) -> object:
    return transfer.upload_file(lora.path).use()


def _send_at_once(pool: ThreadPoolExecutor, lora: Lora, transfer: DeviceTransfer) -> object:
    return list(pool.map(lora.resident, [transfer] * THREADS))
