"""SettingsFile: what the user changed, kept over restarts."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from ...lora.atomic_file import replace_text
from ...prefetch.settings import PrefetchSettings

logger = logging.getLogger("warmstack")


class SettingsFile:
    """Holds only what was changed on purpose, so that a better default reaches everybody who never touched it.

    A change made here wins over the environment: it is the later word. `directory` None keeps nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / "settings.json"

    def applied_to(self, settings: PrefetchSettings) -> PrefetchSettings:
        """`settings` with the kept changes. What cannot be read, or what a newer version
        wrote, is left out with one line in the log."""
        try:
            kept = self._kept()
        except (OSError, ValueError) as error:
            logger.warning("WarmStack: settings.json is ignored: %s", getattr(error, "strerror", None) or error)
            return settings
        for name, value in kept.items():
            try:
                settings = settings.updated({name: value})
            except ValueError as error:
                logger.warning("WarmStack: a setting in settings.json is ignored: %s", error)
        return settings

    def keep(self, changes: Mapping[str, object]) -> bool:
        """Adds `changes` atomically. False when the directory cannot be written: they then last until the restart."""
        if self._path is None:
            return False
        try:
            kept = {**self._kept(), **changes}
        except (OSError, ValueError):
            kept = dict(changes)
        try:
            replace_text(self._path, json.dumps(kept, indent=2) + "\n")
        except OSError as error:
            logger.warning("WarmStack: settings last until the restart only: %s", error.strerror)
            return False
        return True

    def _kept(self) -> dict[str, object]:
        try:
            text = self._path.read_text("utf-8") if self._path is not None else "{}"
        except FileNotFoundError:
            return {}
        kept = json.loads(text)
        if not isinstance(kept, dict):
            raise ValueError("it does not hold an object")
        return kept
