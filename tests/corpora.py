"""What other projects test themselves with, from their packages: fetched when it is needed, kept
nowhere."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from realservers import missing

#: What old packages need to be looked at by today's pip.
CONSTRAINTS = "setuptools<70\n"


def sdist(requirement, folder):
    """Return the folder of a source distribution from the package index, or skip."""
    constraints = folder / "constraints.txt"
    constraints.write_text(CONSTRAINTS)
    name = requirement.partition("==")[0]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name]
    done = subprocess.run(
        [*pip, "--build-constraint", constraints, "-c", constraints, "-d", folder, requirement],
        check=False,
        capture_output=True,
        text=True,
    )
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        missing(f"the source of {requirement}", f"pip download: {done.stderr[-300:]}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    [unpacked] = [path for path in folder.iterdir() if path.is_dir()]
    return unpacked


def debian(package, folder):
    """Return the folder with the files of a package of Debian, which is not installed; or skip."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        missing(package, "it is a package of Debian")
    subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=False)
    found = list(folder.glob("*.deb"))
    if not found:
        missing(package, "apt-get download")
    subprocess.run(["dpkg-deb", "-x", found[0], folder / "files"], check=True)
    return folder / "files"


def html5lib_pages(unpacked):
    """Yield the pages of html5lib-tests: what is to be read as a tree, and as tokens."""
    data = unpacked / "html5lib" / "tests" / "testdata"
    for path in sorted((data / "tree-construction").rglob("*.dat")):
        for case in path.read_text("utf-8", "surrogateescape").split("#data\n")[1:]:
            yield case.partition("\n#errors")[0]
    for path in sorted((data / "tokenizer").glob("*.test")):
        for case in json.loads(path.read_text("utf-8")).get("tests", ()):
            text = case["input"]
            yield text.encode().decode("unicode_escape") if case.get("doubleEscaped") else text


def url_cases(files):
    """Yield (URL as it is written, its base) of urltestdata.json."""
    [path] = Path(files).rglob("urltestdata.json")
    for case in json.loads(path.read_text("utf-8")):
        if isinstance(case, dict):
            yield case["input"], case["base"]
