"""Install the servers that no Python package carries: run by `make test` before the tests.

That is memcached, from the packages of Debian or Ubuntu. Where it cannot be installed, the tests
that need it are skipped, and say so; with CI=true they fail.
"""

import os
import shutil
import subprocess
import sys


def main() -> None:
    if shutil.which("memcached"):
        return
    if shutil.which("apt-get") is None:
        print("memcached is not here and there is no apt-get: its tests will be skipped")
        return
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    print("installing memcached, which the tests need: apt-get install memcached", flush=True)
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (["update", "-qq"], ["install", "-y", "-qq", "memcached"]):
            subprocess.run(
                [*sudo, "apt-get", *command],
                env=environ,
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
            )
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"memcached could not be installed ({error}): its tests will be skipped")


if __name__ == "__main__":
    main()
