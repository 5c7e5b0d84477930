"""Settings of the whole suite."""

from __future__ import annotations

from hypothesis import settings

# A machine that runs other things as well is no reason for a test to fail.
settings.register_profile("hunt", deadline=None, print_blob=True)
# The same draws every time: a change is judged by what it changed. New draws are `make hunt`.
settings.register_profile("suite", settings.get_profile("hunt"), derandomize=True)
settings.load_profile("suite")
