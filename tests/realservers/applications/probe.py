"""An application that shows what its server tells it and does with what it returns. What is asked
for stands in the query, so that a test may send any path:

    ?do=tell                what is in the environ, as JSON; the default
    ?do=tell&read=5         with the first five bytes of the body
    ?do=answer&status=303   that status, and `[]` for a body; with &blank=, `[b""]`
    ?do=text                a body of five bytes, with its length in the header
    ?do=late                404, by a generator that calls start_response for its first piece
    ?do=write               a body by write(), if the server has that
    ?do=stream&pieces=100   that many pieces, with a pause before each

With &note=<name>, what becomes of the body is noted in a file of that name in the server's folder,
a line for each piece that was asked for, and `closed` for a call of close().
"""

import json
import os
import time
from urllib.parse import parse_qsl

#: The size of a piece of a stream, and the pause before it in seconds: larger than what is under
#: way between two processes, and longer than it takes to notice that a connection is gone.
PIECE, PAUSE = 65536, 0.01


def application(environ, start_response):
    asked = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    answer = ANSWERS[asked.get("do", "tell")]
    return answer(environ, start_response, asked)


def tell(environ, start_response, asked):
    told = {key: value for key, value in environ.items() if isinstance(value, str | bool | int)}
    told["pid"] = os.getpid()
    if "read" in asked:
        told["body"] = environ["wsgi.input"].read(int(asked["read"])).decode("latin-1")
    body = json.dumps(told).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def answer(environ, start_response, asked):
    # Behind Apache, 200 with the path of a location means: ask for that, and send its answer.
    location = [("Location", "/elsewhere")] if asked["status"].startswith("3") else []
    start_response(f"{asked['status']} Said", [*location, ("Content-Length", "0")])
    return [b""] if "blank" in asked else []


def text(environ, start_response, asked):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return Body(asked, [b"hello"])


def late(environ, start_response, asked):
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("X-Late", "yes")])
    yield b"late"


def write(environ, start_response, asked):
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    if write is None:
        return [b"none."]
    write(b"wrote")
    return []


def stream(environ, start_response, asked):
    def pieces():
        for _ in range(int(asked["pieces"])):
            time.sleep(PAUSE)
            yield b"." * PIECE

    start_response("200 OK", [("Content-Type", "text/plain")])
    return Body(asked, pieces())


class Body:
    """What an application returns, with notes of what becomes of it."""

    def __init__(self, asked, pieces):
        self.name = asked.get("note")
        self.pieces = iter(pieces)

    def __iter__(self):
        return self

    def __next__(self):
        piece = next(self.pieces)
        self.note("piece")
        return piece

    def close(self):
        self.note("closed")

    def note(self, what):
        if self.name:
            with open(self.name, "a") as file:
                file.write(what + "\n")


ANSWERS = {
    "tell": tell,
    "answer": answer,
    "text": text,
    "late": late,
    "write": write,
    "stream": stream,
}
