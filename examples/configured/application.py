"""Sessions that an ini file configures: in Paste's form, with Beaker's names.

    python examples/configured/application.py
    INI=production.ini python examples/configured/application.py

    curl -c jar -b jar http://127.0.0.1:8000/       # counts, also after a restart
    nocookie check examples/configured/development.ini

Needs PasteDeploy. The options are in development.ini; this program knows none of them.
"""

import os
from pathlib import Path
from wsgiref.simple_server import make_server

from paste.deploy import loadapp

from nocookie import SessionMiddleware, session


def count(environ, start_response):
    session["visits"] = session.get("visits", 0) + 1
    session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"visit %d\n" % session["visits"]]


def make_app(global_conf, **local_conf):
    """What the ini file names. It hands on the whole configuration, as Pylons does: what is not
    about sessions is left alone."""
    return SessionMiddleware(count, {**global_conf, **local_conf})


if __name__ == "__main__":
    ini = Path(__file__).parent.joinpath(os.environ.get("INI", "development.ini")).resolve()
    application = loadapp(f"config:{ini}")
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), application) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
