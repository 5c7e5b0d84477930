"""Uploads beside other work: packed weights, a computing stream, a busy interpreter; and what pinning costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import torch

from warmstack.loaders import DeviceTransfer, upload_packed
from warmstack.loaders.gguf.packed import PackedTensor
from warmstack.loaders.gguf.quant_types import GGUF_TYPES

from .lora_upload import Lora
from .rig import Rig

PACKED_TYPES = ("Q4_K", "Q6_K", "Q8_0")
COPIES = 4


def measure_packed(rig: Rig, transfer: DeviceTransfer, side: int, tensors: int) -> dict[str, dict[str, float]]:
    """`tensors` of side x side: packed bytes sent and dequantised there, against float16 made here and sent."""
    results = {}
    for name in PACKED_TYPES:
        packed = {str(index): _packed(name, side, index) for index in range(tensors)}

        def there(packed: dict[str, PackedTensor] = packed) -> dict[str, torch.Tensor]:
            return upload_packed(transfer, "model", packed).tensors

        def here(packed: dict[str, PackedTensor] = packed) -> object:
            values = {key: item.dequantise(torch.float16) for key, item in packed.items()}
            return transfer.upload("model", values).use()

        for key, tensor in there().items():
            if not torch.equal(tensor.cpu(), packed[key].dequantise(torch.float16)):
                raise SystemExit(f"benchmarks/transfer.py: {name} dequantised on the device differs")
        median_s = rig.medians_s({"packed, dequantised there": there, "dequantised here": here}, 3)
        sent_bytes = sum(item.data.nbytes for item in packed.values())
        results[name] = {"packed_bytes": sent_bytes, "float16_bytes": 2 * tensors * side * side, **median_s}
    return results


def measure_overlap(rig: Rig, lora: Lora, transfer: DeviceTransfer, side: int) -> dict[str, float]:
    """COPIES uploads from another thread while the computing stream multiplies matrices for about as long. "hidden" is
    the share of the shorter of the two that cost nothing; "stretched" how much longer the matrices took. Neither means
    anything unless they are "balanced": alone, one takes at most three times as long as the other."""
    matrix = torch.randn(side, side, device=rig.device, dtype=torch.float16 if rig.on_gpu else torch.float32)

    def upload() -> list[object]:
        return [lora.resident(transfer) for _ in range(COPIES)]

    upload_s = rig.medians_s({"upload": upload}, 3)["upload"]
    # Not the first product of the process: that one loads the library, and would be taken for many.
    product_s = rig.medians_s({"product": lambda: _multiply(matrix, 5)}, 3)["product"] / 5
    products = max(1, round(upload_s / product_s))
    alone_s = rig.medians_s({"compute": lambda: _multiply(matrix, products)}, 3)["compute"]
    compute_s = []

    def together() -> None:
        thread = threading.Thread(target=upload)
        thread.start()
        started_s = time.perf_counter()
        _multiply(matrix, products)
        if rig.on_gpu:
            torch.cuda.current_stream().synchronize()
        compute_s.append(time.perf_counter() - started_s)
        thread.join()

    both_s = rig.medians_s({"both": together}, 3)["both"]
    hidden = (upload_s + alone_s - both_s) / min(upload_s, alone_s)
    stretched = sorted(compute_s)[len(compute_s) // 2] / alone_s
    return {
        "upload_s": upload_s, "compute_s": alone_s, "both_s": both_s, "hidden": hidden, "stretched": stretched,
        "balanced": max(upload_s, alone_s) <= 3 * min(upload_s, alone_s),
    }  # fmt: skip


def measure_busy_interpreter(rig: Rig, lora: Lora, transfer: DeviceTransfer) -> dict[str, float]:
    """An upload beside a thread that never leaves Python: every return from a call that released the interpreter may
    wait 5 ms for it."""
    alone_s = rig.medians_s({"alone": lambda: lora.resident(transfer).use()}, 5)["alone"]
    stop = threading.Event()
    thread = threading.Thread(target=_count_until, args=(stop.is_set,))
    thread.start()
    try:
        beside_s = rig.medians_s({"beside": lambda: lora.resident(transfer).use()}, 5)["beside"]
    finally:
        stop.set()
        thread.join()
    return {"alone_s": alone_s, "beside_s": beside_s, "ratio": beside_s / alone_s}


def measure_pinning(rig: Rig, lora: Lora) -> dict[str, float]:
    """What a pinned copy of a whole adapter would cost: pinned memory for it, and pinning the memory that it has.
    Against that stands what one upload through the slots takes longer than one copy from pinned memory."""
    # torch pins powers of two, and keeps what is given back: of the adapter's own size it has some by now, and one of
    # twice as much nobody has asked for yet.
    pinned_bytes = 1 << lora.nbytes.bit_length()
    fresh_s = rig.seconds(lambda: rig.pinned(2 * pinned_bytes)) / 2
    if not rig.on_gpu:
        return {"fresh_s": fresh_s, "fresh_bytes": pinned_bytes}
    cudart = torch.cuda.cudart()
    address = torch.frombuffer(lora.file.buffer, dtype=torch.uint8).data_ptr()
    page = address // 4096 * 4096
    registered = []
    register_s = rig.seconds(lambda: registered.append(cudart.cudaHostRegister(page, lora.nbytes // 4096 * 4096, 0)))
    failed = bool(int(registered[0]))
    release_s = 0.0 if failed else rig.seconds(lambda: cudart.cudaHostUnregister(page))
    return {
        "fresh_s": fresh_s,
        "fresh_bytes": pinned_bytes,
        "register_s": float("nan") if failed else register_s,
        "unregister_s": release_s,
        "nbytes": lora.nbytes,
    }


def _packed(name: str, side: int, seed: int) -> PackedTensor:
    kind = GGUF_TYPES[name]
    blocks = side * side // kind.block_elements
    raw = np.random.default_rng(seed).integers(0, 256, (blocks, kind.block_bytes), np.uint8)
    # Bit 6 of a float16's high byte makes exponents large: without it no scale is infinite or undefined.
    raw &= 0x3B
    return PackedTensor(name, kind, (side, side), torch.from_numpy(raw.reshape(-1)), "to be sent")


def _multiply(matrix: torch.Tensor, times: int) -> torch.Tensor:
    product = matrix
    for _ in range(times):
        product = matrix @ matrix
    return product


def _count_until(done: Callable[[], bool]) -> None:
    count = 0
    while not done():
        count += 1
