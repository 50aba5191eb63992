"""The corpus, as pytest parameters, and how a case becomes a scope.

The files in `corpus/` are for anybody's rewriter: nothing in them is about this library.
"""

import json
import re
from pathlib import Path

import pytest

from nocookie.places import InParameter, InQuery, InSegment
from nocookie.rewriting import Scope

CORPUS = Path(__file__).parent / "corpus"
PLACES = {"query": InQuery, "path": InSegment, "param": InParameter}


def cases(*names):
    """Return the cases of these files as pytest parameters, each with its fixture."""
    found = []
    for name in names:
        data = json.loads((CORPUS / f"{name}.json").read_text("utf-8"))
        found += [
            pytest.param({**data["fixture"], **case}, id=case["id"]) for case in data["cases"]
        ]
    return found


def scope_of(case):
    kind, _, name = case["carrier"].partition(":")
    return Scope(
        case["page"],
        PLACES[kind](name),
        case["session"],
        grammar=re.compile(case["grammar"]),
        mount=case["mount"],
        origin=case.get("origin"),
    )
