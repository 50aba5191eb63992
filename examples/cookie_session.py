"""A shopping cart that its visitor keeps: the whole session in a cookie, sealed; no store at all.

    python examples/cookie_session.py
    SECRET=$(nocookie secret) python examples/cookie_session.py
    curl -c jar -b jar -d item=tea http://127.0.0.1:8000/
    curl -c jar -b jar http://127.0.0.1:8000/

Needs nocookie[crypto]. Without SECRET a new one is made at each start, and no cart outlives it.
With COOKIE_DOMAIN=.example.com the cart goes along to every host below that domain.
"""

import os
from wsgiref.simple_server import make_server

from webob import Request, Response

from nocookie import SessionMiddleware, ValueRefused, session
from nocookie.strength import fresh_secret


def cart(environ, start_response):
    request = Request(environ)
    if request.method == "POST":
        item = request.POST.get("item", "").strip()
        if item:
            session.setdefault("items", []).append(item)
        else:
            session.delete()
        try:
            session.save()
        except ValueRefused:  # 4096 bytes are what a cookie holds
            session.revert()
            return Response("The cart is full.\n", status=413)(environ, start_response)
    items = session.get("items", [])
    return Response("".join(f"{item}\n" for item in items) or "empty\n")(environ, start_response)


application = SessionMiddleware(
    cart,
    type="cookie",
    key="cart",
    secret=os.environ.get("SECRET") or fresh_secret(),
    cookie_domain=os.environ.get("COOKIE_DOMAIN"),
    cookie_expires=14 * 86400,  # kept for two weeks after the last use ...
    timeout=14 * 86400,  # ... and opened for as long
    lifetime=90 * 86400,
)


if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), application) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
