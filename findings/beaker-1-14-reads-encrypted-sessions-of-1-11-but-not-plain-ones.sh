#!/usr/bin/env bash
# After an update from Beaker 1.11.0 to 1.14.1 a file session that 1.11.0 wrote without encryption
# cannot be opened: the constructor raises AttributeError (it takes the stored dict for text), for as
# long as the file lies there. A session that 1.11.0 wrote with encrypt_key opens as it was. So the
# encrypted ones survive the update, and the plain ones end in a 500.
# Seen: Beaker 1.11.0 and 1.14.1, with cryptography for the encrypted one.
#   plain:     AttributeError
#   encrypted: ada
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for package in Beaker==1.11.0 Beaker==1.14.1; do
  version=${package#*==}
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet "$package" cryptography==48.0.0 setuptools==80.9.0
done
cat > "$folder/options.py" <<'PYTHON'
import sys

from beaker.session import Session


def options(encrypted):
    found = {
        "use_cookies": False, "type": "file", "data_dir": f"{sys.argv[1]}/{encrypted}",
        "id": "0123456789abcdef0123456789abcdef", "key": "s",
    }
    if encrypted:
        found.update(encrypt_key="k" * 32, validate_key="v" * 32, crypto_type="cryptography")
    return found
PYTHON
cd "$folder"
1.11.0/bin/python - "$folder" <<'PYTHON'
from options import Session, options

for encrypted in False, True:
    session = Session({}, **options(encrypted))
    session["user"] = "ada"
    session.save()
PYTHON
PYTHONWARNINGS=ignore 1.14.1/bin/python - "$folder" <<'PYTHON'
from options import Session, options

seen = []
for encrypted in False, True:
    try:
        seen.append(Session({}, **options(encrypted)).get("user"))
    except Exception as error:
        seen.append(type(error).__name__)
print("plain:    ", seen[0])
print("encrypted:", seen[1])
assert seen == ["AttributeError", "ada"], seen
PYTHON
