"""The strategies that exist, and which of them can do a request."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import NoCapableLoaderError
from .eager import EagerLoadingStrategy
from .fast_single_file import FastSingleFileLoadingStrategy
from .lazy import LazyLoadingStrategy
from .parallel import ParallelLoadingStrategy
from .parallel_async_lazy import ParallelAsyncLazyLoadingStrategy
from .strategy import LoadingStrategy, LoadRequest
from .streaming import StreamingLoadingStrategy


@dataclass(frozen=True, slots=True)
class StrategyRegistry:
    """Named strategies. Every one that refuses a request says why."""

    strategies: Mapping[str, LoadingStrategy]

    @classmethod
    def of(cls, *strategies: LoadingStrategy) -> StrategyRegistry:
        return cls({strategy.name: strategy for strategy in strategies})

    @classmethod
    def default(cls) -> StrategyRegistry:
        return cls.of(
            EagerLoadingStrategy(),
            LazyLoadingStrategy(),
            FastSingleFileLoadingStrategy(),
            ParallelLoadingStrategy(),
            ParallelAsyncLazyLoadingStrategy(),
            StreamingLoadingStrategy(),
        )

    def configured(self, name: str, fields: Mapping[str, Any]) -> StrategyRegistry:
        """This registry with the strategy `name` set to `fields`, as in `workers=2`."""
        if not fields:
            return self
        known = (
            {field.name for field in dataclasses.fields(self.strategies[name])} if name in self.strategies else set()
        )
        unknown = sorted(set(fields) - known)
        if unknown:
            takes = f"takes {', '.join(sorted(known))}" if known else "takes no settings"
            raise ValueError(f"strategy {name!r} has no {', '.join(unknown)}; it {takes}")
        return StrategyRegistry({**self.strategies, name: dataclasses.replace(self.strategies[name], **fields)})

    def refusals(self, request: LoadRequest) -> dict[str, str]:
        """name -> reason of each strategy that cannot do `request`."""
        found = ((name, strategy.constraints.refusal(request)) for name, strategy in self.strategies.items())
        return {name: reason for name, reason in found if reason is not None}

    def require_name(self, name: str) -> None:
        """ValueError when no strategy is called `name`."""
        if name not in self.strategies:
            raise ValueError(f"no strategy {name!r}; there are {', '.join(self.strategies)}, auto")

    def require(self, name: str, request: LoadRequest) -> LoadingStrategy:
        """The strategy called `name`; NoCapableLoaderError with its reason when it cannot do `request`."""
        self.require_name(name)
        refusals = self.refusals(request)
        if name in refusals:
            raise NoCapableLoaderError(request.paths[0] if request.paths else "", {name: refusals[name]})
        return self.strategies[name]
