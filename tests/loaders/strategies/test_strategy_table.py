"""docs/loaders.md says what the strategies do, and not what they did once."""

from __future__ import annotations

import re

import pytest
import strategy_table

from warmstack.loaders import errors
from warmstack.loaders.strategies.registry import StrategyRegistry

PAGE = strategy_table.PAGE.read_text("utf-8")


def test_the_page_has_the_tables_of_the_code() -> None:
    assert strategy_table.with_tables(PAGE) == PAGE, "run: python scripts/strategy_table.py --write"


@pytest.mark.parametrize("name", strategy_table.tables())
def test_an_old_table_is_noticed(name: str) -> None:
    row = strategy_table.tables()[name].splitlines()[-1]
    assert strategy_table.with_tables(PAGE.replace(row, "| old |")) == PAGE != PAGE.replace(row, "| old |")


def test_every_strategy_is_a_choice_of_auto_somewhere() -> None:
    chosen = set(re.findall(r"`(\w+)`", strategy_table.tables()["auto"])) - {"auto"}
    assert chosen == set(StrategyRegistry.default().strategies)


def test_every_error_is_explained() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert {name for name in defined if f"| `{name}` |" not in PAGE} == set()
