"""The documentation keeps its word: its code runs, its settings are taken, its links lead on.

Every ```python block of a page runs, in order, in one namespace and one empty folder per page. A
block that must not run has the comment `<!-- not run -->` on the line before it. Every ```ini
block is given to the options, unless `<!-- refused -->` stands before it: then it must be refused.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import RECIPE
from webob import Request
from webob.dec import wsgify

from nocookie import SessionMiddleware
from nocookie.errors import ConfigError
from nocookie.manager import SessionManager
from nocookie.options import PREFIXES
from nocookie.stores import close_all

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md")) + [path for path in [ROOT / "README.md"] if path.exists()]

FENCE = re.compile(
    r"(?:<!-- (?P<word>[a-z ]+) -->\n+)?^ *```(?P<kind>\w*)\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\((?P<target>[^)\s]+)\)")


class Block(NamedTuple):
    kind: str
    code: str
    #: The line of the page that the code starts on.
    line: int
    #: The word of a comment right before it: "not run", "refused".
    word: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        yield Block(match["kind"], textwrap.dedent(match["code"]), line, match["word"] or "")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def pages_with(kind: str) -> list[Path]:
    return [page for page in PAGES if any(block.kind == kind for block in blocks(page))]


@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_code_on_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block runs, after those before it, with nothing else prepared."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # A real module, so that what the page defines can be pickled and imported by name.
    module = types.ModuleType("docs_page")
    if page == ROOT / "README.md":
        vars(module).update(app=lambda environ, start: [], find_id_func=lambda: None)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    try:
        if page == ROOT / "README.md":
            in_a_request(lambda: run(page, module))
        else:
            run(page, module)
    finally:
        close_all()


def run(page: Path, module: types.ModuleType) -> None:
    for block in blocks(page):
        if block.kind == "python" and block.word != "not run":
            # Blank lines before it, so that a traceback points into the page.
            source = "\n" * (block.line - 1) + block.code
            exec(compile(source, str(page), "exec"), module.__dict__)
    for name, test in list(vars(module).items()):
        if name.startswith("test_") and isinstance(test, types.FunctionType):
            test()


def in_a_request(handle: Callable[[], None]) -> None:
    """The README shows what is inside an application, and leaves the application out."""

    @wsgify
    def application(request: Request) -> str:
        handle()
        return ""

    response = Request.blank("/").get_response(SessionMiddleware(application, use_cookies=False))
    assert response.status_int == 200


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "Suite):" in page.read_text("utf-8")], ids=name_of
)
def test_suites_on_the_page_pass(page: Path, tmp_path: Path) -> None:
    """What a page offers as a store or a carrier keeps every promise of its kind."""
    code = "\n".join(block.code for block in blocks(page) if block.kind == "python")
    (tmp_path / "test_page.py").write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", pages_with("ini"), ids=name_of)
def test_settings_on_the_page_are_taken(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every ini block makes a manager, and has a key of ours in it; the refused ones do not."""
    shop = types.ModuleType("shop.sessions")  # the application that ini blocks speak of
    shop.find_id = lambda request: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop", types.ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.sessions", shop)
    for block in blocks(page):
        if block.kind != "ini":
            continue
        code = block.code if block.code.lstrip().startswith("[") else "[app:main]\n" + block.code
        parser = ConfigParser({"here": str(tmp_path)})
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(code)
        config = {key: value for part in parser.sections() for key, value in parser[part].items()}
        assert any(key.startswith((*PREFIXES, "cache_dir")) for key in config), block.line
        if block.word == "refused":
            with pytest.raises(ConfigError):
                SessionManager(config)
        else:
            SessionManager(config)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_on_the_page_lead_somewhere(page: Path) -> None:
    """Relative links name a file that is there, and a heading that it has."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for match in LINK.finditer(text):
        target, _, heading = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), match["target"]
        if heading:
            assert heading in headings(file), match["target"]


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings make, and those of rows of its tables."""
    text = page.read_text("utf-8")
    lines = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}
    return made | set(re.findall(r'^\| <a id="([^"]+)"></a>', text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_page_closes_what_it_opens(page: Path) -> None:
    """No fence is left open: else half of a page would be code, and none of it tested."""
    text = page.read_text("utf-8")
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(list(FENCE.finditer(text)))


def test_every_page_is_on_the_map() -> None:
    """docs/README.md links to every other page: none can be found by luck only."""
    here = DOCS / "README.md"
    linked = {
        (DOCS / match["target"].partition("#")[0]).resolve()
        for match in LINK.finditer(here.read_text("utf-8"))
    }
    assert {page for page in DOCS.rglob("*.md") if page != here} <= linked


def test_every_example_is_mentioned() -> None:
    """A program under examples/ that no page names helps nobody."""
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    examples = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
    assert [name for name in examples if f"examples/{name}" not in text] == []


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if "_get_current_obj()" in page.read_text("utf-8")],
    ids=name_of,
)
def test_the_recipe_is_printed_word_for_word(page: Path) -> None:
    """Where a page prints the Pylons recipe, its statements are the published ones; the import
    alone names this library. Comments may be left out, and stand for the last `pass`."""
    recipe = RECIPE.replace("from beaker.session import", "from nocookie import")
    wanted = statements(recipe)
    printed = [line for block in blocks(page) for line in statements(block.code)]
    start = printed.index(wanted[0])
    assert printed[start : start + len(wanted)] == wanted


def statements(code: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in code.splitlines())
    return [line.replace("...", "pass") for line in lines if line]


def test_there_is_a_page_that_prints_the_whole_recipe() -> None:
    """With its comments, as it was published: people search for these lines."""
    page = (DOCS / "hacking-the-session.md").read_text("utf-8")
    recipe = RECIPE.replace("from beaker.session import", "from nocookie import")
    assert [line for line in recipe.splitlines() if line.strip() not in page] == []
