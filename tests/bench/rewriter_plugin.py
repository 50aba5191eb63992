"""nocookie for a benchmark of URL rewriters that loads its peers as plugins.

`register_rewriter` and `SID` come from the benchmark. Beside the whole page in one piece, the
page in pieces of 16 KB, as a server hands it on.
"""

# ruff: noqa: F821
import re

from nocookie.html import HtmlRewriter
from nocookie.rewriting import InQuery, Scope

name, _, value = SID.decode().partition("=")  # type: ignore[name-defined]
place = InQuery(name)
grammar = re.compile("[0-9a-z]{32}")


def rewriter():
    scope = Scope("http://localhost/", place, value, grammar=grammar)
    return HtmlRewriter(scope, sniffed=False)


def in_one(page):
    page_rewriter = rewriter()
    return page_rewriter.feed(page) + page_rewriter.close()


def in_pieces(page):
    page_rewriter = rewriter()
    out = [page_rewriter.feed(page[at : at + 16384]) for at in range(0, len(page), 16384)]
    return b"".join((*out, page_rewriter.close()))


register_rewriter("nocookie", in_one)  # type: ignore[name-defined]
register_rewriter("nocookie, 16 KB pieces", in_pieces)  # type: ignore[name-defined]
