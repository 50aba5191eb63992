#!/usr/bin/env bash
# hishel 2.0.0 presents itself as an HTTP cache by RFC 9111. Made with its defaults, CacheTransport and
# CacheClient keep a response that said `Cache-Control: no-store` and answer the next request with it,
# whatever credentials that one carries; so with `private` and with a Vary that differs. The rules of
# the RFC are followed only where the argument `rfc=True` (default False) asks for them.
# Seen: hishel 2.0.0, httpx 0.28.1.
#   default:  of Ada, of Ada (1 request reached the server)
#   rfc=True: of Ada, of Eve (2 requests reached the server)
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'hishel[httpx]==2.0.0' httpx==0.28.1
cd "$folder"
venv/bin/python - <<'PYTHON'
import sqlite3

import hishel
import hishel.httpx
import httpx


def seen(**options):
    asked = []

    def answer(request):
        asked.append(request)
        who = request.headers["Authorization"].removeprefix("Bearer ")
        head = {"Cache-Control": "no-store", "Vary": "Authorization"}
        return httpx.Response(200, headers=head, text=f"of {who}")

    storage = hishel.SqliteStorage(connection=sqlite3.connect(":memory:", check_same_thread=False))
    transport = hishel.httpx.CacheTransport(httpx.MockTransport(answer), storage, **options)
    with httpx.Client(transport=transport) as client:
        texts = [
            client.get("http://app.example/me", headers={"Authorization": f"Bearer {who}"}).text
            for who in ("Ada", "Eve")
        ]
    return texts, len(asked)


default, rfc = seen(), seen(rfc=True)
print("default: ", ", ".join(default[0]), f"({default[1]} request reached the server)")
print("rfc=True:", ", ".join(rfc[0]), f"({rfc[1]} requests reached the server)")
assert default == (["of Ada", "of Ada"], 1), default
assert rfc == (["of Ada", "of Eve"], 2), rfc
PYTHON
