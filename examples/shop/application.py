"""A shop that knows its visitors by the links they follow: no cookie, no script.

    python examples/shop/application.py                   # ids in the query
    FIND_ID=path:~ python examples/shop/application.py    # in the path; or FIND_ID=param:sid

Log in with any name. `rewrite = html` puts the id on whatever leads back into the shop: links of
any spelling, forms, frames, redirects. What leads to the partner, another site, gets none; nor
does the application beside the shop, which has the same origin, but is outside the mount. No
handler below speaks of ids, except that a login takes a fresh one.
"""

import os
from html import escape
from wsgiref.simple_server import make_server

from webob import Request, Response
from webob.exc import HTTPFound, HTTPNotFound, HTTPSeeOther

from nocookie import SessionMiddleware, session
from nocookie.logs import MaskingRequestHandler

#: Where the shop is mounted.
MOUNT = "/shop"
GOODS = {"tea": "A tin of tea", "coffee": "A bag of coffee"}


class Shop:
    """The pages. *partner* is the origin of another site, to which they link and pay."""

    def __init__(self, partner):
        self.partner = partner
        self.handlers = {
            ("GET", ""): self.slashed,
            ("GET", "/"): self.front,
            ("GET", "/goods/tea"): self.product,
            ("GET", "/goods/coffee"): self.product,
            ("GET", "/catalogue"): self.catalogue,
            ("GET", "/search"): self.search,
            ("GET", "/cart"): self.cart,
            ("POST", "/cart"): self.add,
            ("GET", "/tour"): self.tour,
            ("GET", "/about"): self.about,
            ("GET", "/wait"): self.wait,
            ("GET", "/wait-by-header"): self.wait_by_header,
            ("GET", "/home"): self.home,
            ("GET", "/away"): self.away,
            ("GET", "/pay"): self.pay,
            ("GET", "/login"): self.login_form,
            ("POST", "/login"): self.log_in,
            ("POST", "/logout"): self.log_out,
        }

    def __call__(self, environ, start_response):
        request = Request(environ)
        handler = self.handlers.get((request.method, request.path_info), not_found)
        return handler(request)(environ, start_response)

    # -- links, as different people write them ---------------------------------------------------

    def front(self, request):
        return page(
            "The shop",
            f"""<ul>
            <li><a href="goods/tea">Tea</a>, relative
            <li><a href="{MOUNT}/goods/coffee">Coffee</a>, from the root
            <li><a href="{request.application_url}/catalogue">Catalogue</a>, with the origin
            <li><a href="//{request.host}{MOUNT}/tour">Tour</a>, with the host
            <li><a href="./about">About</a>, <a href="home">home</a>, <a href="wait">wait</a>,
                <a href="wait-by-header">wait by header</a>, <a href="away">away</a>
            <li><a href="{self.partner}/offers?from=shop">Partner</a>, another site;
                <a href="{self.partner}/offers" target="_blank" rel="opener">in a new tab</a>
            <li><a href="/">The application beside</a>, <a href="/shopping">another page of it</a>
            </ul>
            <img src="{self.partner}/banner.svg" alt="An advertisement of the partner's">""",
        )

    def product(self, request):
        name = request.path_info.rpartition("/")[2]
        (other,) = GOODS.keys() - {name}
        size = request.GET.get("size", "small")
        return page(
            GOODS[name],
            f"""<p>Size: <b id="size">{escape(size)}</b>. <a href="?size=large">Large</a>,
            <a href="#reviews">reviews</a>, <a href="{other}">{other}</a>,
            <a href="../cart">cart</a>, <a href="..">up</a></p>
            <form method="post" action="../cart">
            <input type="hidden" name="what" value="{name}"><button>Add</button></form>
            <p id="reviews">Good.</p>""",
        )

    def catalogue(self, request):
        """Its links start from another folder than its own."""
        links = " ".join(f'<a href="{name}">{name}</a>' for name in sorted(GOODS))
        return page("Catalogue", f"<p>{links}</p>", head=f'<base href="{MOUNT}/goods/">')

    def about(self, request):
        """A page that asks nothing of the session: its links carry the id all the same."""
        return html('<title>About</title><h1>About</h1><p>An example. <a href="./">Shop</a></p>')

    # -- forms -----------------------------------------------------------------------------------

    def search(self, request):
        words = request.GET.get("q", "")
        found = [name for name in sorted(GOODS) if words and words in GOODS[name].lower()]
        links = "".join(f'<li><a href="goods/{name}">{name}</a>' for name in found)
        # What a browser does with the query of such an action: it throws it away.
        return page(
            "Search",
            f"""<form action="search?order=price"><input name="q" value="{escape(words)}">
            <button>Search</button></form><ul id="found">{links}</ul>""",
        )

    def cart(self, request):
        things = "".join(f"<li>{escape(GOODS[name])}" for name in session.get("cart", []))
        return page("Your cart", f'<ul id="cart">{things}</ul><p><a href="pay">Pay</a></p>')

    def add(self, request):
        if request.POST.get("what") in GOODS:
            session["cart"] = [*session.get("cart", []), request.POST["what"]]
            session.save()
        return HTTPSeeOther(location="cart")

    def pay(self, request):
        there = f"{self.partner}/pay"
        return page(
            "Pay",
            f"""<form id="by-post" method="post" action="{there}"><input type="hidden" name="sum"
            value="5"><button>Pay by card</button></form>
            <form id="by-get" action="{there}"><button>Pay by link</button></form>
            <form id="either" action="cart"><button>Back to the cart</button>
            <button formaction="{there}">Pay by voucher</button></form>""",
        )

    # -- frames, and what moves on by itself -----------------------------------------------------

    def tour(self, request):
        return page(
            "Tour",
            f"""<iframe name="ours" src="cart" title="Your cart"></iframe>
            <iframe name="theirs" src="{self.partner}/widget" title="The partner's"></iframe>""",
        )

    def wait(self, request):
        return page("Wait", "", head='<meta http-equiv="refresh" content="0; url=cart">')

    def wait_by_header(self, request):
        response = page("Wait", "")
        response.headers["Refresh"] = "0; url=cart"
        return response

    def home(self, request):
        return HTTPFound(location=f"{request.host_url}{MOUNT}/")

    def away(self, request):
        return HTTPSeeOther(location=f"{self.partner}/offers?by=redirect")

    def slashed(self, request):
        return HTTPFound(location=f"{MOUNT}/")

    # -- who it is -------------------------------------------------------------------------------

    def login_form(self, request):
        # In earnest there is a password: see examples/login.py.
        return page(
            "Log in",
            """<form method="post"><label>Your name <input name="name" required maxlength="100">
            </label> <button>Log in</button></form>""",
        )

    def log_in(self, request):
        name = request.POST.get("name", "")[:100]
        if not name:
            return HTTPSeeOther(location="login")
        session.login(name)  # whoever knew the id of before does not know this one
        return HTTPSeeOther(location="./")

    def log_out(self, request):
        return HTTPSeeOther(headers=session.logout(f"{MOUNT}/").headers)


def not_found(request):
    return HTTPNotFound()


def page(title, body, head=""):
    if session.owner is not None:
        who = escape(session.owner)
        door = f'<form method="post" action="{MOUNT}/logout"><button>Log out</button></form>'
    else:
        who, door = "nobody we know", f'<a href="{MOUNT}/login">Log in</a>'
    return html(
        f"""<title>{title}</title>{head}<style>{STYLE}</style>
        <header><span>You are <b id="who">{who}</b></span> <nav><a href="{MOUNT}/">Shop</a>
        <a href="{MOUNT}/cart">Cart</a> <a href="{MOUNT}/search">Search</a></nav> {door}</header>
        <h1>{title}</h1>{body}"""
    )


def html(text):
    return Response(f'<!doctype html><html lang="en"><meta charset="utf-8">{text}', charset="utf-8")


STYLE = """
body { font: 16px/1.6 sans-serif; max-width: 40em; margin: 1em auto; padding: 0 1em }
header { display: flex; gap: 1em; justify-content: space-between; align-items: baseline;
    border-bottom: 1px solid #bbb; padding-bottom: .5em }
form { margin: .5em 0 } header form { margin: 0 }
iframe { width: 100%; height: 12em; border: 1px solid #bbb }
"""


def beside(environ, start_response):
    """Another application of the same origin, whose business ids of the shop are not."""
    text = f'<title>Beside</title><h1>Beside</h1><p><a href="{MOUNT}/">The shop</a></p>'
    return html(text)(environ, start_response)


def house(shop, beside):
    """Serve the shop below its mount, and beside it what else there is."""

    def application(environ, start_response):
        path = environ.get("PATH_INFO", "")
        if path != MOUNT and not path.startswith(f"{MOUNT}/"):
            return beside(environ, start_response)
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + MOUNT
        environ["PATH_INFO"] = path[len(MOUNT) :]
        return shop(environ, start_response)

    return application


def with_sessions(partner, find_id="query:sid"):
    return SessionMiddleware(Shop(partner), use_cookies=False, find_id=find_id, rewrite="html")


if __name__ == "__main__":
    partner = os.environ.get("PARTNER", "https://partner.example")
    application = house(with_sessions(partner, os.environ.get("FIND_ID", "query:sid")), beside)
    port = int(os.environ.get("PORT", "8000"))
    handler = MaskingRequestHandler
    with make_server("127.0.0.1", port, application, handler_class=handler) as server:
        print(f"http://127.0.0.1:{server.server_port}{MOUNT}/", flush=True)
        server.serve_forever()
