"""Settings of the whole suite."""

from __future__ import annotations

from hypothesis import Phase, settings

# A machine that runs other things as well is no reason for a test to fail.
settings.register_profile("hunt", deadline=None, print_blob=True)
# The same draws every time: a change is judged by what it changed. New draws are `make hunt`.
settings.register_profile("suite", settings.get_profile("hunt"), derandomize=True)
# What scripts/break_invariants.py has broken fails; the smallest example of it is nobody's question.
settings.register_profile("breaks", settings.get_profile("suite"), phases=(Phase.explicit, Phase.generate))
settings.load_profile("suite")
