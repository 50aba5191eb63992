"""What the guard reads takes time in proportion to its length: eight times the text does not take
sixty-four times the time. In time of the processor, with much room."""

import time

import pytest

from nocookie.leaks import FormWatch
from nocookie.logs import mask
from nocookie.policies import lax_css, tightened_html, tightened_link
from nocookie.reporting import keep_reports


def css(text):
    lax_css(text.encode(), 0, len(text), is_whole=False)


def forms(text):
    FormWatch(["A" * 43], lambda url: False, print).feed(
        ("A" * 43 + "<form action=x>" + text).encode()
    )


def reports(name):
    return lambda text: keep_reports([(name, text)], lambda url: False, of_this_page=True)


READERS = {
    "css": css,
    "a document": tightened_html,
    "a link": tightened_link,
    "forms": forms,
    "a policy": reports("Content-Security-Policy"),
    "endpoints": reports("Reporting-Endpoints"),
    "groups": reports("Report-To"),
    "a log": mask,
}
PIECES = [
    *(
        "r",
        "referrer-policy(",
        "\\",
        "\\72 ",
        "\\0000",
        "policy(",
        '"',
        '\\"',
        '"\\',
        "<",
        "<input ",
    ),
    *("<textarea>", "content=", "referrerpolicy=", "content=a ", "referrerpolicy=\t", "&amp;", " "),
    *(
        "report-uri x;",
        "report-to ",
        ",",
        "a=",
        "[",
        "[0;",
        "%",
        "%41",
        "/~",
        "A",
        "-",
        "\\x41",
        "{",
    ),
]


def seconds(read, text):
    best = 9.0
    for _ in range(3):
        start = time.process_time()
        read(text)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("what", READERS)
def test_what_is_read_takes_time_in_proportion(what, piece):
    short, long = (piece * (size // len(piece)) for size in (20_000, 160_000))
    took = seconds(READERS[what], long)
    assert took < 0.05 or took < 24 * seconds(READERS[what], short)
