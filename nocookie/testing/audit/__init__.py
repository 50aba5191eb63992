"""A black-box audit of an application with sessions: requirement by requirement, over HTTP.

It plays clients, attackers, caches and browsers against an application that runs, whatever it is
written with::

    from nocookie.testing import audit

    report = audit.run("http://127.0.0.1:8000", carrier="header:X-Session-Id",
                       endpoints={"login": "POST /login user={user}", "logout": "POST /logout"})
    print(report)
    assert not report.failed

or from the shell: `python -m nocookie.testing.audit http://127.0.0.1:8000`. What the endpoints
have to do is in docs/audit.md. Audit a copy: it stores, logs out and breaks what it can.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any, Final

from nocookie.errors import ConfigError
from nocookie.testing.audit import checks as checks  # registers them
from nocookie.testing.audit.auditor import Auditor
from nocookie.testing.audit.client import NoAnswer, OutOfTime
from nocookie.testing.audit.report import Outcome, Report, Result
from nocookie.testing.audit.requirements import (
    CHECKS,
    NOT_FROM_OUTSIDE,
    TITLES,
    Failed,
    NotApplicable,
)
from nocookie.testing.audit.target import NAMES, Target

__all__ = ["NAMES", "TITLES", "Outcome", "Report", "Result", "Target", "Unusable", "run"]

#: What looks back on all that was done comes last.
LAST: Final = (24, 23)


class Unusable(Exception):
    """The target does not do what an audit stands on: a value that /set stored is shown by /get,
    to the client that was told its id."""


def run(base: str, *, only: Collection[int] | None = None, **description: Any) -> Report:
    """Audit the application at the URL *base*, which *description* describes: see `Target`.

    *only* names the requirements to check. Raises `ConfigError` for a wrong description, and
    `Unusable`.
    """
    for name in description:
        if name not in Target.__dataclass_fields__:
            near = get_close_matches(name, Target.__dataclass_fields__, 1)
            raise ConfigError(
                f"there is no {name!r} in the description of a target"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
    audit = Auditor(Target(base=base, **description))
    numbers = [number for number in TITLES if only is None or number in only]
    began = time.monotonic()
    until = began + audit.target.limit
    # Without these answers there is nothing to report on, so one of them may take its time.
    audit.client.until = max(until, began + audit.target.patience)
    _try_out(audit)
    audit.client.until = until
    results = {
        number: _result(audit, number, until)
        for number in sorted(numbers, key=lambda n: (LAST.index(n) + 1 if n in LAST else 0, n))
    }
    mask = audit.masker()
    return Report(
        base, [results[n]._replace(evidence=mask(results[n].evidence)) for n in sorted(results)]
    )


def _try_out(audit: Auditor) -> None:
    try:
        visitor, marker = audit.known()
        if visitor.sees(marker):
            return
        why = "/get does not show what /set stored"
    except (Failed, NoAnswer) as error:
        why = str(error)
    except OutOfTime:
        why = "no answer in time"
    raise Unusable(
        f"{why}. An audit needs a target whose /set stores and gives out an id by "
        f"{audit.target.carrier} or the header {audit.target.id_header}, and whose /get shows it"
    )


def _result(audit: Auditor, number: int, until: float) -> Result:
    began = time.monotonic()
    outcome: Outcome = "pass"
    too_late = f"not reached within {audit.target.limit:g} s"
    if number in NOT_FROM_OUTSIDE:
        outcome, evidence = "not applicable", NOT_FROM_OUTSIDE[number]
    elif began > until:
        outcome, evidence = "not applicable", too_late
    else:
        try:
            evidence = CHECKS[number](audit)
        except NotApplicable as reason:
            outcome, evidence = "not applicable", str(reason)
        except OutOfTime:
            outcome, evidence = "not applicable", too_late
        except (Failed, NoAnswer) as why:
            outcome, evidence = "fail", str(why)
    return Result(number, TITLES[number], outcome, evidence, time.monotonic() - began)
