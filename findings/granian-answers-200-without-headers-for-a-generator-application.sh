#!/usr/bin/env bash
# A WSGI application that is a generator function (it calls start_response in the first step of its
# body, which PEP 3333 allows) gets its status and its headers dropped by granian 2.8.9: the client
# sees 200 and no header of the application. The same body behind a plain function is answered as it
# should be.
# Seen: granian 2.8.9, Python 3.11 to 3.13.
#   generator: 200 None
#   function:  404 1
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null && wait "$server" || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet granian==2.8.9
cat > "$folder/served.py" <<'PYTHON'
def body(environ, start_response):
    start_response("404 Not Found", [("X-A", "1"), ("Content-Type", "text/plain")])
    yield b"body"


def application(environ, start_response):
    if environ["PATH_INFO"] == "/generator":
        return body(environ, start_response)
    chunks = body(environ, start_response)
    return [next(chunks)]
PYTHON
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$folder"
"$folder/venv/bin/granian" --interface wsgi --host 127.0.0.1 --port "$port" served:application > log 2>&1 &
server=$!
"$folder/venv/bin/python" - "$port" <<'PYTHON'
import http.client
import sys
import time


def ask(path):
    for _ in range(100):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5)
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.getheader("X-A")
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise SystemExit("granian did not start")


function, generator = ask("/function"), ask("/generator")
print("generator:", *generator)
print("function: ", *function)
assert function == (404, "1"), function
assert generator == (200, None), generator
PYTHON
