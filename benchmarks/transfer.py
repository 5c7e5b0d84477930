"""Uploading one 224 MB LoRA of 2,166 tensors to a GPU: `DeviceTransfer` against `.to()` of each tensor, taking turns.

    python benchmarks/transfer.py [--rounds 9] [--slots 3] [--slot-mib 16] [--json OUT.json]

Each clock stops when the device has every byte. "pinned copy" is one large copy from pinned memory, the most that the
link gives, measured in the same rounds. "aligned" and "2-byte aligned" are the two kinds of file: scalars between the
matrices make every tensor of the second start anywhere, and each is moved on its way. With 1, 2 and 4 streams, four
threads upload one LoRA each. The bars, for the 2-byte aligned file: at least 10 times as fast as `.to()` of each
tensor, and at least 90% of the pinned copy. Exits with 2 where there is no CUDA device."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from warmstack.loaders import CudaDevice, DeviceTransfer, TensorFile, read_tensors

MODULES = 722
RANK = 32
WIDTH = 2400
BAR_SPEEDUP = 10.0
BAR_LINK = 0.9
STREAMS = (1, 2, 4)
THREADS = 4


def main() -> None:
    options = _options()
    if not torch.cuda.is_available():
        print("benchmarks/transfer.py: torch sees no CUDA device here; nothing was measured", file=sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "aligned": read_tensors(_write_lora(Path(folder) / "aligned.safetensors", alphas=False)),
            "2-byte aligned": read_tensors(_write_lora(Path(folder) / "odd.safetensors", alphas=True)),
        }
    report = _report(files, options)
    text = json.dumps(report, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    else:
        print(text)
    sys.exit(0 if report["passed"] else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--slots", type=int, default=3)
    parser.add_argument("--slot-mib", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write the report here instead of to stdout")
    return parser.parse_args()


def _write_lora(path: Path, *, alphas: bool) -> Path:
    tensors = {}
    for index in range(MODULES):
        name = f"lora_unet_input_blocks_{index}_1_transformer_blocks_0_attn1_to_k"
        tensors[f"{name}.lora_down.weight"] = torch.randn(RANK, WIDTH).half()
        tensors[f"{name}.lora_up.weight"] = torch.randn(WIDTH, RANK).half()
        if alphas:
            tensors[f"{name}.alpha"] = torch.tensor(float(RANK)).half()
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def _report(files: dict[str, TensorFile], options: argparse.Namespace) -> dict[str, object]:
    slots, slot_bytes = options.slots, options.slot_mib << 20
    with DeviceTransfer(CudaDevice(), slots=slots, slot_bytes=slot_bytes) as transfer:
        _require_equal(files, transfer)
        median_s = {name: _measure(file, transfer, options.rounds) for name, file in files.items()}
    odd = median_s["2-byte aligned"]
    speedup = odd["each .to()"] / odd["one buffer"]
    link_share = odd["pinned copy"] / odd["one buffer"]
    return {
        "benchmark": "transfer",
        "rounds": options.rounds,
        "slots": slots,
        "slot_bytes": slot_bytes,
        "files": {
            name: {
                "tensors": len(file.tensors),
                "nbytes": file.nbytes,
                "median_s": median_s[name],
                "pinned_copy_bytes_per_s": file.nbytes / median_s[name]["pinned copy"],
            }
            for name, file in files.items()
        },
        "streams_bytes_per_s": _measure_streams(files["2-byte aligned"], options.rounds, slots, slot_bytes),
        "speedup": speedup,
        "link_share": link_share,
        "bars": {"speedup": BAR_SPEEDUP, "link_share": BAR_LINK},
        "passed": speedup >= BAR_SPEEDUP and link_share >= BAR_LINK,
        "machine": {
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(),
        },
    }


def _require_equal(files: dict[str, TensorFile], transfer: DeviceTransfer) -> None:
    for name, file in files.items():
        upload = transfer.upload(name, file.tensors, buffer=file.buffer)
        if upload.reasons:
            sys.exit(f"benchmarks/transfer.py: not what is to be measured: {'; '.join(upload.reasons)}")
        uploaded = upload.use()
        if not all(torch.equal(uploaded[key].cpu(), tensor) for key, tensor in file.tensors.items()):
            sys.exit(f"benchmarks/transfer.py: the upload of the {name} file differs from the file")


def _measure(file: TensorFile, transfer: DeviceTransfer, rounds: int) -> dict[str, float]:
    pinned = torch.empty(file.nbytes, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(file.nbytes, dtype=torch.uint8, device="cuda")
    contenders: dict[str, Callable[[], object]] = {
        "pinned copy": lambda: target.copy_(pinned, non_blocking=True),
        "each .to()": lambda: {key: tensor.to("cuda") for key, tensor in file.tensors.items()},
        "one buffer": lambda: transfer.upload("lora", file.tensors, buffer=file.buffer).use(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, upload in contenders.items():
            seconds[name].append(_seconds(upload))
    return {name: statistics.median(times) for name, times in seconds.items()}


def _measure_streams(file: TensorFile, rounds: int, slots: int, slot_bytes: int) -> dict[str, float]:
    """Bytes per second of THREADS uploads at once, by number of streams. Each thread can fill a slot of its own."""
    seconds: dict[int, list[float]] = {streams: [] for streams in STREAMS}
    with ThreadPoolExecutor(THREADS) as pool:
        transfers = {
            streams: DeviceTransfer(CudaDevice(streams=streams), slots=slots + THREADS, slot_bytes=slot_bytes)
            for streams in STREAMS
        }

        def upload(transfer: DeviceTransfer) -> None:
            transfer.upload("lora", file.tensors, buffer=file.buffer).wait()

        def upload_at_once(transfer: DeviceTransfer) -> None:
            list(pool.map(upload, [transfer] * THREADS))

        for transfer in transfers.values():
            upload(transfer)
        for _ in range(rounds):
            for streams, transfer in transfers.items():
                seconds[streams].append(_seconds(partial(upload_at_once, transfer)))
    for transfer in transfers.values():
        transfer.release()
    return {str(streams): THREADS * file.nbytes / statistics.median(times) for streams, times in seconds.items()}


def _seconds(upload: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started_s = time.perf_counter()
    uploaded = upload()
    torch.cuda.synchronize()
    elapsed_s = time.perf_counter() - started_s
    del uploaded
    return elapsed_s


if __name__ == "__main__":
    main()
