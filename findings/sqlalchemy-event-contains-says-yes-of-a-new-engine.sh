#!/usr/bin/env bash
# SQLAlchemy 2.0.44 and 2.1.9: event.contains(engine, "do_connect", listener) can say True of an
# engine on which nobody has ever listened. Events of the dialect are kept by the dialect, and are
# looked up by the engine's address in memory. Where something keeps a dialect and lets its engine go
# (a migration, a tool that writes DDL), a later engine at the same address inherits the answer, not
# the listener: "listen unless it listens" leaves it without one, and nothing says so.
# Seen (5,000 engines one after another, each asked, and given the listener if it said no; "deaf" are
# those that said yes and never called it; the number with kept dialects varies, some hundreds):
#   SQLAlchemy 2.0.44 deaf, dialects let go: 0 kept: 223
#   SQLAlchemy 2.1.9 deaf, dialects let go: 0 kept: 240
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/old"
"$folder/old/bin/pip" install --quiet sqlalchemy==2.0.44
python3 -m venv "$folder/new"
"$folder/new/bin/pip" install --quiet sqlalchemy==2.1.9
for venv in old new; do
    "$folder/$venv/bin/python" - <<'PYTHON'
import sqlalchemy
from sqlalchemy import create_engine, event

calls = []


def listener(*_):
    calls.append(1)


def deaf(kept):
    """How many of the engines said that it listens, and did not call it."""
    found = 0
    for _ in range(5000):
        engine = create_engine("sqlite://")
        if event.contains(engine, "do_connect", listener):
            before = len(calls)
            engine.connect().close()
            found += len(calls) == before
        else:
            event.listen(engine, "do_connect", listener)
        if kept is not None and len(kept) < 500:
            kept.append(engine.dialect)
        del engine
    return found


without, with_dialects = deaf(None), deaf([])
print("SQLAlchemy", sqlalchemy.__version__, "deaf, dialects let go:", without, "kept:", with_dialects)
assert with_dialects > 0 and without == 0
PYTHON
done
