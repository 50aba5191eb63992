"""The language of a session, with gettext catalogues and without cookies.

    pip install Babel
    python examples/languages/application.py
    curl -i -d lang=pl http://127.0.0.1:8000/language      # answers X-Session-Id: ...
    curl -H 'X-Session-Id: ...' http://127.0.0.1:8000/     # in Polish from now on

A visitor who has not chosen gets what the browser asks for. The catalogues are the .po files beside
this one: `pybabel extract` and `pybabel update` keep them, translators edit them, and they are
compiled when the program starts.
"""

import io
import os
from gettext import GNUTranslations, NullTranslations
from pathlib import Path
from wsgiref.simple_server import make_server

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from webob import Response
from webob.dec import wsgify
from webob.exc import HTTPBadRequest, HTTPNotFound

from nocookie import SessionMiddleware, session

FOLDER = Path(__file__).parent


def catalogue(path):
    compiled = io.BytesIO()
    with path.open("rb") as file:
        write_mo(compiled, read_po(file))
    compiled.seek(0)
    return GNUTranslations(compiled)


#: The texts in the program are English.
CATALOGUES = {"en": NullTranslations()}
CATALOGUES |= {path.stem: catalogue(path) for path in sorted(FOLDER.glob("*.po"))}


def before(request):
    """Pylons' `__before__`: choose the catalogue of this request. It belongs to the request, not to
    the process as with `gettext.install`, because the next thread serves somebody else."""
    lang = session.get("lang") or request.accept_language.lookup(list(CATALOGUES), default="en")
    request.lang, request.catalogue = lang, CATALOGUES[lang]


def greet(request):
    _, ngettext = request.catalogue.gettext, request.catalogue.ngettext
    letters = int(request.GET.get("letters", "1"))
    waiting = ngettext("You have {n} letter.", "You have {n} letters.", letters)
    return f"{_('Good morning.')} {waiting.format(n=letters)}\n"


def choose(request):
    lang = request.POST.get("lang")
    if lang not in CATALOGUES:
        raise HTTPBadRequest()
    session["lang"] = lang
    session.save()
    before(request)
    return request.catalogue.gettext("This is the language from now on.") + "\n"


HANDLERS = {("GET", "/"): greet, ("POST", "/language"): choose}


@wsgify
def site(request):
    handler = HANDLERS.get((request.method, request.path_info))
    if handler is None:
        return HTTPNotFound()
    before(request)
    response = Response(handler(request), content_type="text/plain", charset="utf-8")
    response.content_language = request.lang
    response.vary = "Accept-Language"
    return response


application = SessionMiddleware(site, use_cookies=False)


if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), application) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
