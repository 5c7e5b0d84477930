"""Settings that every test shares."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A deadline is a timed assertion: on a busy machine it fails without a fault. In CI the examples are fixed, so that a
# push never fails on a case that it did not bring; every run on a developer's machine looks for new ones.
settings.register_profile(
    "warmstack", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("warmstack")
