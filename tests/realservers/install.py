"""Install what no Python package carries: run by `make test` before the tests.

That is memcached, and Chromium with its driver, from the packages of Debian. Where one cannot be
installed, the tests that need it are skipped, and say so; with CI=true they fail.
"""

import os
import shutil
import subprocess
import sys

#: The program, and the package that brings it.
NEEDED = {"memcached": "memcached", "chromium": "chromium", "chromedriver": "chromium-driver"}


def main() -> None:
    packages = [package for program, package in NEEDED.items() if not shutil.which(program)]
    if not packages:
        return
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        print(f"no apt-get to install these with, their tests will be skipped: {names}")
        return
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    print(f"installing what the tests need: apt-get install {names}", flush=True)
    if not succeeds(*sudo, "apt-get", "update", "-qq"):
        print("the lists of packages could not be brought up to date")
    for package in packages:  # one by one: where one is unknown, the others still come
        if not succeeds(*sudo, "apt-get", "install", "-y", "-qq", package):
            print(f"{package} could not be installed: its tests will be skipped")


def succeeds(*command: str) -> bool:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, env=environ, check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr
        )
    except OSError:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    main()
