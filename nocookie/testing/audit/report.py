"""What an audit found, requirement by requirement."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

__all__ = ["Outcome", "Report", "Result"]

Outcome = Literal["pass", "fail", "not applicable"]

#: Columns of a terminal.
WIDTH: Final = 100


class Result(NamedTuple):
    """One requirement. No field holds an id: where one session must be named, there is a mask."""

    number: int
    title: str
    outcome: Outcome
    #: What was seen; or why it could not be looked for.
    evidence: str
    #: How long the check took.
    seconds: float

    @property
    def name(self) -> str:
        return f"REQ-{self.number:02}"


class Report(Sequence[Result]):
    """The results in the order of their numbers."""

    def __init__(self, base: str, results: Sequence[Result]) -> None:
        self.base = base
        self._results = tuple(results)

    def __getitem__(self, index: int) -> Result:  # type: ignore[override]
        return self._results[index]

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results)

    def of(self, number: int) -> Result:
        """Return the result of one requirement. Raises KeyError if it was not asked for."""
        for result in self._results:
            if result.number == number:
                return result
        raise KeyError(number)

    @property
    def failed(self) -> list[Result]:
        """The requirements that are not met."""
        return [result for result in self._results if result.outcome == "fail"]

    @property
    def passed(self) -> list[Result]:
        return [result for result in self._results if result.outcome == "pass"]

    @property
    def not_applicable(self) -> list[Result]:
        """The requirements that could not be checked, with the reason as their evidence."""
        return [result for result in self._results if result.outcome == "not applicable"]

    def as_text(self) -> str:
        """Return the report for a terminal."""
        words = {"pass": "pass", "fail": "FAIL", "not applicable": "n/a "}
        blocks = []
        for result in self._results:
            head = f"{result.name}  {words[result.outcome]}  "
            rest = " " * len(head)
            blocks.append(textwrap.fill(result.title, WIDTH, initial_indent=head))
            blocks.append(
                textwrap.fill(result.evidence, WIDTH, initial_indent=rest, subsequent_indent=rest)
            )
        return "\n".join([self.summary(), "", *blocks, "", self.summary(), ""])

    def summary(self) -> str:
        counts = Counter(result.outcome for result in self._results)
        return (
            f"{self.base}: {counts['pass']} passed, {counts['fail']} failed, "
            f"{counts['not applicable']} not applicable"
        )

    def as_json(self) -> str:
        """Return the report for a program."""
        results = [
            {
                "requirement": result.name,
                "title": result.title,
                "outcome": result.outcome,
                "evidence": result.evidence,
                "seconds": round(result.seconds, 3),
            }
            for result in self._results
        ]
        return json.dumps({"target": self.base, "results": results}, indent=2)

    def __str__(self) -> str:
        return self.as_text()

    def __repr__(self) -> str:
        return f"<Report {self.summary()}>"
