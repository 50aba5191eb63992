"""A store in a package of its own, examples/lmdb_store: it is built and installed as any other
package, found by its entry point, and passes the suite unchanged."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "lmdb_store"

#: Seconds. Far more than it takes to build, and to run the suite.
PATIENCE = 300

APPLICATION = """
import sys
from webob import Request
from nocookie import SessionMiddleware, session

def app(environ, start_response):
    session["count"] = session.get("count", 0) + 1
    session.save()
    start_response("200 OK", [])
    return [str(session["count"]).encode()]

app = SessionMiddleware(app, use_cookies=False, type="lmdb", data_dir=sys.argv[1])
request = Request.blank("/", headers={"X-Session-Id": sys.argv[2]} if sys.argv[2:] else {})
response = request.get_response(app)
store = app.manager.backend.store
print(type(store).__module__, response.text, response.headers.get("X-Session-Id"))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run(*arguments)`: a Python that has the package installed, and what it prints."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(
        EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    site = folder / "site"
    paths = [str(site), *filter(None, sys.path)]

    def run(*arguments, cwd=source):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    install = ["pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    run("-m", *install, "--target", site, source, cwd=folder)
    shutil.rmtree(source / "build", ignore_errors=True)
    # From here on only what was installed.
    (source / "nocookie_lmdb.py").unlink()
    return run


def test_it_passes_the_suite_that_ours_pass(run):
    out = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    passed = int(re.search(r"(\d+) passed", out)[1])
    assert passed > 100, out


def test_its_name_is_a_type_and_two_processes_share_a_session(run, tmp_path):
    module, count, id = run("-c", APPLICATION, tmp_path).split()
    assert (module, count) == ("nocookie_lmdb", "1")
    assert run("-c", APPLICATION, tmp_path, id).split() == ["nocookie_lmdb", "2", "None"]


def test_its_test_file_changes_nothing_of_the_suite():
    """A fixture named store is all that it adds."""
    text = (EXAMPLE / "tests" / "test_nocookie_lmdb.py").read_text("utf-8")
    suite = re.search(r"(?m)^class TestLmdbStore\(StoreSuite\):\n((?: {4}.*\n|\n(?= ))+)", text)
    assert re.findall(r"def (\w+)", suite[1]) == ["store"]


def test_a_page_speaks_of_it():
    text = (ROOT / "docs" / "write-your-own-store.md").read_text("utf-8")
    assert "examples/lmdb_store" in text
