#!/usr/bin/env bash
# Under uvicorn 0.54.0 a context variable that an ASGI application sets before it reads a request body
# of more than 64 KiB is still set in every later request on the same connection: reading was paused,
# `receive()` resumes it, and asyncio takes the context of that moment for all that arrives from then
# on. Smaller bodies do not show it. The option --reset-contextvars, off by default, ends that.
# Seen: uvicorn 0.54.0 with h11 0.16.0.
#   200,000 bytes:                      unset first first
#   1,000 bytes:                        unset unset unset
#   200,000 bytes, --reset-contextvars: unset unset unset
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null && wait "$server" || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uvicorn==0.54.0 h11==0.16.0
cat > "$folder/served.py" <<'PYTHON'
from contextvars import ContextVar

who = ContextVar("who", default="unset")


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    seen = who.get()
    if scope["path"] == "/first":
        who.set("first")
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(seen))]})
    await send({"type": "http.response.body", "body": seen.encode()})
PYTHON
cd "$folder"
ask() {
  size=$1
  shift
  port=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  venv/bin/python -m uvicorn --http h11 --host 127.0.0.1 --port "$port" "$@" served:application > log 2>&1 &
  server=$!
  venv/bin/python - "$port" "$size" <<'PYTHON'
import http.client
import sys
import time

for _ in range(100):
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5)
    try:
        connection.connect()
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
seen = []
for path in "/first", "/second", "/third":
    body = b"x" * int(sys.argv[2]) if path == "/first" else None
    connection.request("POST" if body else "GET", path, body)
    seen.append(connection.getresponse().read().decode())
print(*seen)
PYTHON
  kill "$server"; wait "$server" 2>/dev/null || true
}
large=$(ask 200000)
small=$(ask 1000)
reset=$(ask 200000 --reset-contextvars)
echo "200,000 bytes:                      $large"
echo "1,000 bytes:                        $small"
echo "200,000 bytes, --reset-contextvars: $reset"
test "$large" = "unset first first"
test "$small" = "unset unset unset"
test "$reset" = "unset unset unset"
