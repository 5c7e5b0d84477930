"""The tables of docs/loaders.md, asked of the code itself.

python scripts/strategy_table.py          # print them
python scripts/strategy_table.py --write  # put them into docs/loaders.md
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import strategy_figures
import torch

from warmstack.loaders.files.header import SafetensorsHeader
from warmstack.loaders.files.tensor_entry import TensorEntry
from warmstack.loaders.placing.device_map import DeviceMap
from warmstack.loaders.strategies.auto import Surroundings, choose_strategy
from warmstack.loaders.strategies.registry import StrategyRegistry
from warmstack.loaders.strategies.strategy import LoadingStrategy, LoadRequest
from warmstack.loaders.system.disk_kind import DiskKind

PAGE = Path(__file__).resolve().parents[1] / "docs" / "loaders.md"
_ONE = LoadRequest(("a.safetensors",))
_TWO = LoadRequest(("a.safetensors", "b.safetensors"))
_PART = DeviceMap.of({"": "cpu", "text": "disk"})
_MIB = 1 << 20


def tables() -> dict[str, str]:
    """Name of the table on the page -> its text."""
    registry = StrategyRegistry.default()
    figures = strategy_figures.figures()
    return {
        "strategies": _strategies(registry),
        "figures": _table(figures[0], figures[1:]),
        "wins": _wins(registry),
        "auto": _choices(registry),
    }


def with_tables(page: str) -> str:
    """`page` with each table between its two marks replaced."""
    for name, table in tables().items():
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition(f"<!-- /{name} -->")
        page = f"{before}<!-- {name} -->\n{table}\n<!-- /{name} -->{after}"
    return page


def _strategies(registry: StrategyRegistry) -> str:
    rows = [_strategy_row(strategy) for strategy in registry.strategies.values()]
    columns = _probes(registry.strategies["eager"])
    return _table(("strategy", *columns, "settings", "the right one for", "refuses with"), rows)


def _probes(strategy: LoadingStrategy) -> dict[str, LoadRequest]:
    """Column -> what is asked of the strategy, about as many files as it wants at least."""
    files = _ONE if strategy.constraints.min_files == 1 else _TWO
    return {
        "one file": _ONE,
        "shards": _TWO,
        "`.gguf`, `.ckpt`": replace(files, paths=tuple(path.replace("safetensors", "gguf") for path in files.paths)),
        "a part": replace(files, device_map=_PART),
        "`dtype`": replace(files, dtype=torch.bfloat16),
        "`device`": replace(files, device="cuda"),
    }


def _strategy_row(strategy: LoadingStrategy) -> tuple[str, ...]:
    refusals = [strategy.constraints.refusal(request) for request in _probes(strategy).values()]
    fields = (f"`{field.name}={field.default}`" for field in dataclasses.fields(strategy))
    takes = ("no" if reason else "yes" for reason in refusals)
    reasons = dict.fromkeys(reason for reason in refusals if reason and "not .gguf" not in reason)
    return (f"`{strategy.name}`", *takes, ", ".join(fields), strategy.summary, "; ".join(reasons))


def _wins(registry: StrategyRegistry) -> str:
    wins = strategy_figures.wins()
    rows = []
    for name in registry.strategies:
        texts = [win.text for win in wins if win.strategy == name]
        none = "nothing that was measured" if strategy_figures.is_measured(name) else "not measured yet"
        rows.append((f"`{name}`", "; ".join(texts) or none))
    return _table(("strategy", "ahead of the others with"), rows)


@dataclass(frozen=True)
class _Situation:
    words: str
    sizes_bytes: Sequence[int]
    wants: LoadRequest = _ONE
    free_bytes: int = 1 << 40
    disk: DiskKind = "flash"
    cached: bool = False


_SITUATIONS = (
    _Situation("one small file", [8 * _MIB]),
    _Situation("one large file", [64 * _MIB]),
    _Situation("one large file, rotating disk", [64 * _MIB], disk="rotating"),
    _Situation("large shards, flash disk", [64 * _MIB] * 2),
    _Situation("large shards, rotating disk", [64 * _MIB] * 2, disk="rotating"),
    _Situation("large shards, network disk, but cached", [64 * _MIB] * 2, disk="network", cached=True),
    _Situation("a device map leaves a part on disk", [64 * _MIB], replace(_ONE, device_map=_PART)),
    _Situation("low memory, and a cast", [64 * _MIB], replace(_ONE, dtype=torch.bfloat16, low_memory=True)),
    _Situation("larger than memory once cast", [64 * _MIB], replace(_ONE, dtype=torch.bfloat16), free_bytes=96 * _MIB),
    _Situation("larger than memory, stays on the CPU", [64 * _MIB], free_bytes=64 * _MIB),
    _Situation(
        "larger than memory, all of it goes to a GPU", [64 * _MIB], replace(_ONE, device="cuda"), free_bytes=64 * _MIB
    ),
)


def _choices(registry: StrategyRegistry) -> str:
    with tempfile.TemporaryDirectory() as folder:
        rows = [_choice_row(registry, situation, Path(folder)) for situation in _SITUATIONS]
    return _table(("situation", "`auto` takes", "because"), rows)


def _choice_row(registry: StrategyRegistry, situation: _Situation, folder: Path) -> tuple[str, ...]:
    paths = [folder / f"{index}.safetensors" for index in range(len(situation.sizes_bytes))]
    for path, size_bytes in zip(paths, situation.sizes_bytes, strict=True):
        with path.open("wb") as file:
            file.truncate(size_bytes)
    surroundings = Surroundings(
        free_bytes=lambda: situation.free_bytes,
        disk_kind=lambda _path: situation.disk,
        cached_bytes=lambda path: Path(path).stat().st_size if situation.cached else 0,
    )
    headers = {str(path): _header(str(path), size) for path, size in zip(paths, situation.sizes_bytes, strict=True)}
    choice = choose_strategy(registry, replace(situation.wants, paths=tuple(headers), headers=headers), surroundings)
    return (situation.words, f"`{choice.strategy.name}`", "; ".join(choice.reasons))


def _header(path: str, size_bytes: int) -> SafetensorsHeader:
    half = size_bytes // 2
    tensors = {
        "unet.weight": TensorEntry("F32", (half // 4,), 0, half),
        "text.weight": TensorEntry("F32", (half // 4,), half, 2 * half),
    }
    return SafetensorsHeader(path, tensors, {}, 0, size_bytes, 0)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main(arguments: Sequence[str]) -> None:
    if "--write" in arguments:
        PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
        return
    print("\n\n".join(tables().values()))


if __name__ == "__main__":
    main(sys.argv[1:])
