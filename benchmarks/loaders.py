"""Every loading strategy against other loaders and against the floors of the machine, taking turns.

    python benchmarks/loaders.py [--only lora:warm ...] [--rounds 5] [--workdir DIR] [--json OUT.json] [--chart OUT.svg]

Workloads: one LoRA (2,166 tensors, 224 MB), a batch of eight, a small one, a 4 GB checkpoint, the same in five
shards, 30% of it and of the shards by prefix, the shards cast to bfloat16. Warm: every page in the page cache. Cold:
dropped with posix_fadvise and checked. Each loader has a process of its own, and they take turns, in a new order each
round; the clock stops when every page of the tensors has been read, so that mapped ones pay for what they put off.
What a process keeps of its earlier loads serves it, but for a whole checkpoint: that comes into fresh memory.
Floors of the same rounds: memcpy by two threads, and direct reads into memory that is there already.

`--only` takes sections: `WORKLOAD:warm`, `WORKLOAD:cold`, `beside` (a load in a thread beside pure Python and beside an
asyncio loop) and `window` (the memory of a stream, and how long somebody takes who works on its tensors); what `--json`
holds of an earlier run is kept and added to. Loaders that are not installed are left out and named: `--peers` is a
folder that `pip install --target` has filled with some, COMFYUI_PATH and COMFYUI_PYTHON bring in ComfyUI's own. Needs
Linux."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from loaderkit import beside, chart, consumer, report, window, workloads
from loaderkit.contenders import CONTENDERS
from loaderkit.measuring import STATES, Measuring, prepare

SECTIONS = (*(f"{name}:{state}" for name in workloads.NAMES for state in STATES), "beside", "window")


def main() -> None:
    options = _options()
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    whole: dict[str, Any] = known
    kept = nullcontext(options.workdir) if options.workdir else tempfile.TemporaryDirectory()
    with kept as folder:
        for found in _found(Path(folder), options):
            whole = report.merged(known, found)
            whole["summary"] = report.summary(whole)
            if options.json:
                # After each round, so that a run that is broken off has not been in vain.
                options.json.write_text(json.dumps(whole, indent=1) + "\n")
    if options.chart:
        chart.draw(whole, options.chart)
    if not options.json:
        print(json.dumps(whole, indent=1))
    missed = [name for name, bar in whole["summary"]["bars"].items() if not bar["met"]]
    print(f"bars missed: {'; '.join(missed) or 'none'}", file=sys.stderr)


def _found(folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What is known after each round, and at the end."""
    names = {section.partition(":")[0] for section in options.only}
    needed = names | ({"batch"} if "beside" in names else set()) | ({"checkpoint"} if "window" in names else set())
    made = workloads.make(folder, options.checkpoint_mb * 1_000_000, frozenset(needed))
    begin = _wait if options.wait else lambda: None
    found: dict[str, Any] = {"benchmark": "loaders", "machine": report.machine(), "workloads": {}}
    found["wanted_bytes"] = {workload.name: workload.wanted_bytes for workload in made.values()}
    if "beside" in names:
        prepare(made["batch"], "warm")
        begin()
        found["beside"] = beside.measure_beside(made["batch"].paths, options.rounds)
    if "window" in names:
        found["window"] = window.measure_window(made["checkpoint"].paths[0])
        found["consumer"] = consumer.measure_consumer(made["checkpoint"].paths[0], options.rounds)
    yield found
    with ExitStack() as stack:
        for taken in _rounds(made, options, begin, stack):
            yield {**found, "workloads": taken}


def _rounds(
    made: Mapping[str, workloads.Workload],
    options: argparse.Namespace,
    begin: Callable[[], None],
    stack: ExitStack,
) -> Iterator[dict[str, Any]]:
    wanted = [
        (workload, [state for state in STATES if f"{name}:{state}" in options.only]) for name, workload in made.items()
    ]
    wanted = [(workload, states) for workload, states in wanted if states]
    if not wanted:
        return
    contenders = [found for found in CONTENDERS if not options.ours or found.ours or found.memory == "floor"]
    measuring = Measuring(wanted, contenders, options.peers, begin, stack)
    for turn in range(options.rounds):
        measuring.round(turn)
        yield measuring.found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=SECTIONS, choices=SECTIONS, metavar="SECTION")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoint-mb", type=int, default=4000)
    parser.add_argument("--workdir", type=_made, help="where the files are made and stay; a disk, not a tmpfs")
    parser.add_argument("--peers", default="", help="a folder with loaders that this Python lacks")
    parser.add_argument("--json", type=Path, help="the report, which an earlier run may have begun")
    parser.add_argument("--ours", action="store_true", help="our strategies and the floors alone")
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for Enter before every stretch of at most a minute or so, for a machine that is shared",
    )
    parser.add_argument("--chart", type=Path, help="draw the report (SVG)")
    return parser.parse_args()


def _wait() -> None:
    print("ready: press Enter once the machine is quiet", file=sys.stderr, flush=True)
    sys.stdin.readline()


def _made(name: str) -> Path:
    Path(name).mkdir(parents=True, exist_ok=True)
    return Path(name)


if __name__ == "__main__":
    main()
