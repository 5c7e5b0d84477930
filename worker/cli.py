"""warmstack: run a queue of requests, list the LoRAs, plan a queue without running it, show the loaders."""

from __future__ import annotations

import argparse
import io
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from ..loaders.errors import SafetensorsLoadError
from ..lora.errors import LoraError
from ..lora.library.catalog import LoraCatalog
from .interruption import STATUS
from .request import MalformedLine, read_queue
from .state_folder import index_path
from .tables import mebibytes, table_of

if TYPE_CHECKING:
    from .run_command import RunOptions

MODES = ("on-demand", "prefetch", "both")
_UNBOUNDED = 1 << 20
"""Columns of what is no terminal: whoever reads it wants a row on a line."""
LOADER_EXAMPLES = ("compare", "auto", "advanced", "memory", "streaming")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 when every failure is its request's own fault, 1 when not, 2 when nothing could be run, 130 after
    Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As Python does for stderr: into a file on Windows goes its code page, which lacks the letters of many a name.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(message)s")
    console = Console()
    if not console.is_terminal:
        console.width = _UNBOUNDED
    try:
        status: int = arguments.command(arguments, console)
    except (OSError, ValueError, LoraError, SafetensorsLoadError) as problem:
        Console(stderr=True).print(f"[red]{escape(str(problem))}[/red]", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return STATUS
    return status


def _run(arguments: argparse.Namespace, console: Console) -> int:
    _require_folders(arguments.loras)
    arguments.queue.open("rb").close()  # or a mistyped name would be told when the pipeline has been loaded
    # Here, not above: diffusers takes seconds to import, and `list` needs none of it.
    from .run_command import run_command

    return run_command(_options(arguments), console)


def _options(arguments: argparse.Namespace) -> RunOptions:
    from .run_command import RunOptions

    return RunOptions(
        queue=arguments.queue,
        pipeline=arguments.pipeline,
        loras=tuple(arguments.loras),
        output=arguments.output,
        modes=("on-demand", "prefetch") if arguments.mode == "both" else (arguments.mode,),
        cold=arguments.cold,
        steps=arguments.steps,
        memory_limit_mb=arguments.memory_limit_mb,
        device_budget_mb=arguments.device_budget_mb,
        device=arguments.device,
        dtype=arguments.dtype,
        state=arguments.state,
    )


def _list(arguments: argparse.Namespace, console: Console) -> int:
    catalog = _catalog(arguments)
    table = table_of("name", "category", "base model", "rank", "size", "problem")
    for file in catalog.select(arguments.category, arguments.base_model, arguments.pattern):
        rank = "" if file.rank is None else str(file.rank)
        cells = (file.name, file.category, file.base_model, rank, mebibytes(file.size_bytes), file.problem)
        table.add_row(*map(escape, cells))
    console.print(table)
    return 0


def _plan(arguments: argparse.Namespace, console: Console) -> int:
    catalog = _catalog(arguments)
    table = table_of("request", "LoRA", "strength", "file", "size")
    for line in read_queue(arguments.queue, catalog.category_of):
        if isinstance(line, MalformedLine):
            table.add_row(f"line {line.line}", "", "", f"[red]{escape(line.reason)}[/red]", "")
            continue
        for row in line.stack.active:
            try:
                file = catalog.find(row.name, row.category)
                found = (escape(file.name), mebibytes(file.size_bytes))
            except LoraError as problem:
                found = (f"[red]{escape(str(problem))}[/red]", "")
            table.add_row(escape(line.id), escape(row.name), f"{row.strength_model:g}", *found)
    console.print(table)
    return 0


def _loaders(arguments: argparse.Namespace, console: Console) -> int:
    from .loader_examples import EXAMPLES, make_sample

    with tempfile.TemporaryDirectory(prefix="warmstack-") as folder:
        console.print(EXAMPLES[arguments.example](make_sample(Path(folder), arguments.size_mib)))
    return 0


def _catalog(arguments: argparse.Namespace) -> LoraCatalog:
    _require_folders(arguments.loras)
    kept = index_path(arguments.loras, arguments.state)
    catalog = LoraCatalog(lambda: [str(folder) for folder in arguments.loras], index_path=kept)
    catalog.refresh()
    return catalog


def _require_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; --loras takes the folders of the LoRAs")


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="warmstack", description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="log what happens")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="make the pictures of a queue")
    run.set_defaults(command=_run)
    run.add_argument("queue", type=Path, help="JSON lines: objects or strings")
    run.add_argument("--pipeline", type=Path, required=True, help="folder of a saved diffusers pipeline")
    run.add_argument(
        "--output",
        type=Path,
        required=True,
        help="folder for images/, contact sheet and report.json; what no run made there stays",
    )
    run.add_argument("--mode", choices=MODES, default="prefetch", help="both: twice, and compare the pictures")
    run.add_argument("--steps", type=_at_least(1), help="of requests that say none (default: the pipeline's)")
    run.add_argument("--cold", action="store_true", help="drop the LoRAs from the page cache before each pass (Linux)")
    run.add_argument(
        "--memory-limit-mb", type=_at_least(0), help="budget of resident adapters (default: by this machine)"
    )
    run.add_argument(
        "--device-budget-mb", type=_at_least(0), help="keep adapters of the next requests on the GPU, up to this"
    )
    run.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ... (default: cuda when there is one)")
    run.add_argument("--dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto")

    listed = commands.add_parser("list", help="list the LoRAs")
    listed.set_defaults(command=_list)
    listed.add_argument("--category", default="", help="with what lies below it")
    listed.add_argument("--base-model", default="", help="sd15, sdxl, flux, ...")
    listed.add_argument("--pattern", default="", help="glob over names")

    plan = commands.add_parser("plan", help="show which files a queue will load")
    plan.set_defaults(command=_plan)
    plan.add_argument("queue", type=Path, help="JSON lines: objects or strings")

    loaders = commands.add_parser("loaders", help="show the weight loaders on a model that is made for it")
    loaders.set_defaults(command=_loaders)
    loaders.add_argument("--example", choices=LOADER_EXAMPLES, default="compare")
    loaders.add_argument(
        "--size-mib", type=_at_least(1), default=256, help="of the model, once whole and once in shards"
    )
    for command in (run, listed, plan):
        command.add_argument("--loras", type=Path, action="append", required=True, help="LoRA folder; may be repeated")
        command.add_argument("--state", type=Path, help="folder for what is learned of them (default: the user's own)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
