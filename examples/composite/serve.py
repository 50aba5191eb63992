"""Serve what composite.ini describes: three applications that share one session.

    python examples/composite/serve.py
    curl -i http://127.0.0.1:8000/servicebroker/maps      # the id is in X-Session-Id
    curl -H 'X-Session-Id: <id>' http://127.0.0.1:8000/

Needs Paste (for its urlmap), PasteDeploy and waitress.
"""

import os
from pathlib import Path

from paste.deploy import loadapp
from waitress.server import create_server

INI = Path(__file__).with_name("composite.ini")

if __name__ == "__main__":
    # Not by [server:main], so that the port can be chosen, and told.
    port = int(os.environ.get("PORT", "8000"))
    server = create_server(loadapp(f"config:{INI}"), host="127.0.0.1", port=port)
    print(f"http://127.0.0.1:{server.effective_port}/", flush=True)
    server.run()
