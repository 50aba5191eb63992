#!/usr/bin/env bash
# memcached counts its writes in 64 bits, and a cas token is that count. meta-memcache-socket 0.3.1,
# which meta-memcache 4.3 speaks by, reads tokens of 32 bits: where the count is beyond that, an item
# comes back with no token at all, as if it had not been asked for, and to give such a token to a write
# raises OverflowError. So on a server with four billion writes behind it nothing can be saved on a
# condition any more, and nothing says so.
# Seen: meta-memcache-socket 0.3.1. The answers below are memcached's, as its protocol writes them.
#   token 4294967295: read as 4294967295
#   token 4294967296: read as None
#   to give it: OverflowError
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet meta-memcache-socket==0.3.1
"$folder/venv/bin/python" - <<'PYTHON'
from meta_memcache_socket import RequestFlags, parse_header


def token_of(number):
    answer = b"VA 1 c%d\r\n" % number
    found = parse_header(memoryview(answer), 0, len(answer))
    flags = next(each for each in found if hasattr(each, "cas_token"))
    return flags.cas_token


last, first_beyond = 2**32 - 1, 2**32
small, large = token_of(last), token_of(first_beyond)
print(f"token {last}: read as {small}")
print(f"token {first_beyond}: read as {large}")
assert (small, large) == (last, None), (small, large)
try:
    RequestFlags(cas_token=first_beyond)
except OverflowError as error:
    print("to give it:", type(error).__name__)
else:
    raise AssertionError("it was taken")
PYTHON
