"""axe-core on part of a page."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from playwright.sync_api import Page


def serious_violations(page: Page, selector: str) -> list[str]:
    """One line per rule that axe finds broken below `selector` with an impact of serious or critical."""
    found = find_spec("axe_playwright_python")
    assert found is not None and found.origin is not None, "pip install -r tests/web/requirements.txt"
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(path=str(Path(found.origin).with_name("axe.min.js")))
    violations: list[dict[str, Any]] = page.evaluate("(at) => axe.run(at).then((r) => r.violations)", selector)
    return [
        f"{rule['id']}: {rule['nodes'][0]['html'][:120]} {rule['nodes'][0]['failureSummary']}"
        for rule in violations
        if rule["impact"] in ("serious", "critical")
    ]
