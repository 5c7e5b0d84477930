"""pytest on the simulated GPU: says so, skips nothing, and hears of work that nobody waited for."""

from __future__ import annotations

import pytest
import simulated_gpu_backend as backend
import streams
import torch
import torch_cuda

_SAYS = f"GPU: {torch_cuda.NAME}, torch {torch.__version__}; nothing here was seen on a real one"


def pytest_report_header() -> str:
    return _SAYS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(_SAYS)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    for device in range(backend.DEVICES):
        streams.synchronise(device)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> pytest.TestReport:
    report: pytest.TestReport = yield
    if report.skipped:
        report.outcome, report.longrepr = "failed", f"skipped: {report.longrepr}"
    return report
