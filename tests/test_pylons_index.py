"""docs/pylons-page.md keeps its word: every section of the Pylons page is there, and so is whatever
it names, the page, the example and the test."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INDEX = (ROOT / "docs" / "pylons-page.md").read_text("utf-8")

#: The headings of the page, in its order.
SECTIONS = [
    "Sessions",
    "The Session Object",
    "Configuring the Session",
    "Other Session Options",
    "Storing SQLAlchemy mapped objects in Beaker sessions",
    "Custom and caching middleware",
    "Using Session in Internationalization",
    "Using Session in Secure Forms",
    "Hacking the session for no cookies",
    "Using middleware (Beaker) with a composite app",
]

_, *_PARTS = re.split(r"^## (.+)$", INDEX, flags=re.MULTILINE)
PARTS = dict(zip(_PARTS[::2], _PARTS[1::2], strict=True))


def test_every_section_of_the_page_is_there_in_its_order():
    assert list(PARTS)[: len(SECTIONS)] == SECTIONS


@pytest.mark.parametrize("section", PARTS)
def test_a_section_names_a_page_an_example_and_a_test_that_there_are(section):
    kinds = dict(re.findall(r"^- (\w+): (.+(?:\n  .+)*)", PARTS[section], re.MULTILINE))
    assert list(kinds) == ["Page", "Example", "Tests"]
    links = {kind: re.findall(r"\]\(([^)#]+)", text) for kind, text in kinds.items()}
    for page in links["Page"]:
        assert (ROOT / "docs" / page).is_file()
    for example in links["Example"]:
        assert example.startswith("../examples/")
        assert (ROOT / "docs" / example).exists()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", kinds["Tests"])
    assert links["Page"] and links["Example"] and named
    assert [name for file, name in named if name not in functions(file)] == []


def functions(file):
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("section", SECTIONS)
def test_each_page_of_a_section_names_an_example_of_it(section):
    """Whoever reads our page finds the program; one of the pages is enough."""
    page_line = PARTS[section].partition("- Example")[0]
    pages = [
        (ROOT / "docs" / page).resolve() for page in re.findall(r"\]\(([^)#]+\.md)", page_line)
    ]
    examples = re.findall(r"\(\.\./(examples/[^)]+)\)", PARTS[section])
    text = "".join(page.read_text("utf-8") for page in pages)
    assert any(example in text for example in examples)
