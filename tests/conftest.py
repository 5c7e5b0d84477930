"""Settings of the whole suite."""

from __future__ import annotations

from hypothesis import settings

# A machine that runs other things as well is no reason for a test to fail.
settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")
