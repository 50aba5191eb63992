"""Tests that a page names as its proof: that there are such tests, and that they ran and passed.

A proof is written `stores/test_file.py::test_name`, below `tests/`. A test of a class, or of a
suite that a class inherits, has the same form, without the class. conftest.py tells a `Run` what
happens.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SUITES = TESTS.parent / "nocookie" / "testing"

PROOF = re.compile(r"`((?:[\w/]+/)?test_\w+\.py::test_\w+)`")


def proofs_on(page: str) -> list[str]:
    """Return the proofs that a text names, in order."""
    return PROOF.findall(page)


def is_written(proof: str) -> bool:
    """Whether there is such a test in the source: in the file, or in a suite that it inherits."""
    file, _, name = proof.partition("::")
    path = TESTS / file
    if not path.is_file():
        return False
    sources = [path.read_text("utf-8")]
    for suite, module in (("StoreSuite)", "stores.py"), ("CarrierSuite)", "carriers.py")):
        if suite in sources[0]:
            sources.append((SUITES / module).read_text("utf-8"))
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    return name in {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


class Run:
    """What became of the tests of one run."""

    def __init__(self) -> None:
        #: Each proof that was collected, with its node ids: one for each set of parameters.
        self.collected: dict[str, set[str]] = defaultdict(set)
        self.needs_server: set[str] = set()
        self.deselected: set[str] = set()
        #: Skipped by `realservers.missing`, which says so aloud, and where CI=true fails.
        self.without_server: set[str] = set()
        self.passed: set[str] = set()
        self.failed: set[str] = set()
        #: Whether everything was asked for: no file, no word.
        self.is_whole = False

    def collect(self, item: pytest.Item) -> None:
        if isinstance(item, pytest.Function) and item.path.is_relative_to(TESTS):
            file = item.path.relative_to(TESTS).as_posix()
            self.collected[f"{file}::{item.originalname}"].add(item.nodeid)
            if item.get_closest_marker("server"):
                self.needs_server.add(item.nodeid)

    def report(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.passed and report.when == "call":
            self.passed.add(report.nodeid)
        elif report.skipped and "NOT TESTED" in str(report.longrepr):
            self.without_server.add(report.nodeid)

    def fault_of(self, proof: str) -> str | None:
        """Return why this is no proof; None if it is one."""
        nodes = self.collected.get(proof)
        if nodes is None:
            if self.is_whole:
                return "was not collected"
            return None if is_written(proof) else "is not there"
        if nodes & self.failed:
            return "failed"
        if nodes & self.passed:
            return None
        if nodes <= self.without_server | (self.deselected & self.needs_server):
            return None
        if nodes <= self.deselected and not self.is_whole:
            return None
        return "did not run" if nodes & self.deselected else "was skipped"
