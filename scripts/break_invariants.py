"""Breaks the code on purpose, once for each entry of `invariant_breaks`, in a copy of this checkout, and sees the tests
that hold the invariant fail there.

python scripts/break_invariants.py             # all of them: `make breaks`
python scripts/break_invariants.py WORD ...    # those whose invariant, file or description has one of the words

Tests of the host need COMFYUI_PATH and COMFYUI_PYTHON; without, they are left out, by name. The exit status is 1 when a
named test fails on the unbroken copy, passes on a broken one, or a text that is replaced is not there exactly once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from invariant_breaks import BREAKS, Break

ROOT = Path(__file__).resolve().parents[1]
NOT_COPIED = (".*", "__pycache__", "*.egg-info", "demo-output", "node_modules", "build", "dist")
HAS_HOST = {"COMFYUI_PATH", "COMFYUI_PYTHON"} <= os.environ.keys()
TIMEOUT_S = 1800
_FAILED = re.compile(r"^FAILED (\S+)", re.MULTILINE)
_CHECK = re.compile(r"tests/host/checks_\w+\.py::(check_\w+)")


class Case(NamedTuple):
    """One break of one invariant, and those of its tests that can run here."""

    invariant: str
    broken: Break
    tests: tuple[str, ...]


class Ran(NamedTuple):
    """How pytest ended: the ids of the tests that failed (an error around a test is no failure), and what it said."""

    status: int
    failed: tuple[str, ...]
    output: str


class Copy:
    """This checkout in a folder named like the package, which comes first on the path of whatever runs in it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "warmstack"
        # Of pytest's own folders the last few are kept: another run beside a long one would take this one's away.
        self._scratch = folder / "pytest"
        shutil.copytree(ROOT, self.root, ignore=shutil.ignore_patterns(*NOT_COPIED))
        # Compiled files are told from their source by its size and second: a break may change neither.
        self._environment = os.environ | {
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def require_own_code(self) -> None:
        """SystemExit where the tests would import another checkout, which no break here could reach."""
        command = [sys.executable, "-c", "import warmstack; print(warmstack.__file__)"]
        found = subprocess.run(
            command, cwd=self.root, env=self._environment, capture_output=True, text=True, check=True
        )
        if Path(found.stdout.strip()).resolve().parent != self.root.resolve():
            raise SystemExit(
                f"the copy imports {found.stdout.strip()} in place of its own code; use a clean environment"
            )

    def run(self, tests: Iterable[str]) -> Ran:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            f"--basetemp={self._scratch}",
        ]
        # What fails need not be made small: that takes state machines minutes.
        command += ["--hypothesis-profile=breaks", *dict.fromkeys(map(node_id, tests))]
        try:
            done = subprocess.run(
                command, cwd=self.root, env=self._environment, capture_output=True, text=True, timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            return Ran(-1, (), f"no end after {TIMEOUT_S} s")
        return Ran(done.returncode, tuple(_FAILED.findall(done.stdout)), done.stdout + done.stderr)

    def run_broken(self, case: Case) -> Ran:
        path = self.root / case.broken.file
        whole = path.read_text("utf-8")
        path.write_text(whole.replace(case.broken.old, case.broken.new), "utf-8")
        try:
            return self.run(case.tests)
        finally:
            path.write_text(whole, "utf-8")


def node_id(test: str) -> str:
    """What pytest calls `test`: a check that runs inside the host is a parameter of the test that starts the host."""
    check = _CHECK.fullmatch(test)
    return test if check is None else f"tests/host/test_inside_host.py::test_in_the_host[{check[1]}]"


def unnoticed(tests: Iterable[str], failed: Sequence[str]) -> list[str]:
    """Those of `tests` that did not fail. A file has when one of its tests did, a test with any of its parameters."""
    return [test for test in tests if not any(_matches(node_id(test), failure) for failure in failed)]


def _matches(wanted: str, failure: str) -> bool:
    test = failure.partition("[")[0]
    return wanted in (failure, test, test.partition("::")[0])


def misplaced(root: Path) -> list[str]:
    """Breaks whose text does not stand exactly once in its file, one line each."""
    found = ((b, (root / b.file).read_text("utf-8").count(b.old)) for breaks in BREAKS.values() for b in breaks)
    return [f"{b.file}: the text to replace stands there {count} times: {b.says}" for b, count in found if count != 1]


def chosen_cases(words: Sequence[str]) -> list[Case]:
    """What the words ask for, without the tests that cannot run here."""
    cases = []
    for invariant, breaks in BREAKS.items():
        for broken in breaks:
            text = f"{invariant} {broken.file} {broken.says}".lower()
            if words and not any(word.lower() in text for word in words):
                continue
            tests = tuple(test for test in broken.tests if HAS_HOST or not test.startswith("tests/host/"))
            for left_out in sorted(set(broken.tests) - set(tests)):
                print(f"left out, needs COMFYUI_PATH and COMFYUI_PYTHON: {left_out} ({invariant})")
            if tests:
                cases.append(Case(invariant, broken, tests))
    return cases


def notices(copy: Copy, case: Case) -> bool:
    """Breaks the copy, runs the tests and prints how it went; True when every test has noticed."""
    started_s = time.monotonic()
    ran = copy.run_broken(case)
    seconds = time.monotonic() - started_s
    passed = unnoticed(case.tests, ran.failed)
    verdict = "NOT NOTICED" if passed else "failed as it must"
    print(f"{verdict:18} {seconds:4.0f} s  {case.invariant}: {case.broken.says}", flush=True)
    for test in case.tests:
        print(f"{'':26}{'passed' if test in passed else 'failed'}: {test}", flush=True)
    if passed:
        print("\n".join(ran.output.splitlines()[-15:]))
    return not passed


def main(words: Sequence[str]) -> int:
    cases = chosen_cases(words)
    with tempfile.TemporaryDirectory(prefix="warmstack-breaks-", ignore_cleanup_errors=True) as folder:
        copy = Copy(Path(folder))
        copy.require_own_code()
        problems = misplaced(copy.root)
        if problems or not cases:
            print("\n".join(problems) or "nothing to break")
            return 1
        whole = copy.run(test for case in cases for test in case.tests)
        print(f"unbroken: {whole.output.splitlines()[-1]}", flush=True)
        if whole.status:
            print("\n".join(whole.output.splitlines()[-40:]))
            return 1
        noticed = [notices(copy, case) for case in cases]
    invariants = len({case.invariant for case in cases})
    print(f"{sum(noticed)} of {len(noticed)} breaks of {invariants} invariants failed as they must")
    return 0 if all(noticed) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
