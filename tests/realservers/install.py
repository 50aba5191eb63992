"""Install what no Python package carries: run by `make test` before the tests.

That is memcached, Chromium with its driver, nginx, and Apache's mod_wsgi, from the packages of
Debian. Where one cannot be installed, the tests that need it are skipped, and say so; with CI=true
they fail. Of Apache only the program is installed, not the service; nginx may start as a service on
port 80, where no test is in its way.

Other programs are installed by name: `install.py php`, for a benchmark.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

#: What the tests need.
NEEDED = ("memcached", "chromium", "chromedriver", "nginx", "mod_wsgi.so")
#: The packages of programs that have another name.
PACKAGES = {
    "chromedriver": "chromium-driver",
    "mod_wsgi.so": "libapache2-mod-wsgi-py3",
    "php": "php-cli",
}
#: Where Debian puts what is not for everybody's PATH.
FOLDERS = ("/usr/sbin", "/usr/lib/apache2/modules")


def is_here(name: str) -> bool:
    if shutil.which(name):
        return True
    return any(os.path.exists(f"{folder}/{name}") for folder in FOLDERS)


def main(programs: Sequence[str]) -> None:
    packages = [PACKAGES.get(name, name) for name in programs if not is_here(name)]
    if not packages:
        return
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        print(f"no apt-get to install these with, what needs them will be skipped: {names}")
        return
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    print(f"installing what is needed: apt-get install {names}", flush=True)
    if not succeeds(*sudo, "apt-get", "update", "-qq"):
        print("the lists of packages could not be brought up to date")
    for package in packages:  # one by one: where one is unknown, the others still come
        if not succeeds(*sudo, "apt-get", "install", "-y", "-qq", package):
            print(f"{package} could not be installed: what needs it will be skipped")


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
    main(sys.argv[1:] or NEEDED)
