"""A USSD gateway: the id of a dialogue is the gateway's own, and counts only if it signed it.

    python examples/gateway.py             # the application, on http://127.0.0.1:8000/
    python examples/gateway.py 2 50 1      # in another terminal: a telephone that dials these

Voice gateways work alike. Nobody who is not the gateway may choose an id here, because any text is
adopted as one (`strict=False`): so the finder first verifies HMAC-SHA256 over the time and the
body, and finds nothing without it. PORT, GATEWAY_KEY and ID_KEY in the environment set these.
"""

import hashlib
import hmac
import os
import secrets
import sys
import time
import urllib.request
from urllib.parse import urlencode
from wsgiref.simple_server import make_server

from webob import Request, Response

from nocookie import SessionMiddleware, session

PORT = int(os.environ.get("PORT", "8000"))
GATEWAY_KEY = os.environ.get("GATEWAY_KEY", "shared with the gateway alone").encode()
ID_KEY = os.environ.get("ID_KEY", "hashes the gateway's ids for the store")
TOLERANCE = 60  # seconds; a request that somebody recorded is of no use later
LARGEST_BODY = 4096


def signature(when, body):
    return hmac.new(GATEWAY_KEY, when.encode() + b"." + body, hashlib.sha256).hexdigest()


def is_signed(request):
    when = request.headers.get("X-Gateway-Time", "")
    if not (when.isdecimal() and len(when) < 12 and abs(time.time() - int(when)) <= TOLERANCE):
        return False
    if not 0 < (request.content_length or 0) <= LARGEST_BODY:
        return False
    # compare_digest takes the same time however much of a guess is right; and it takes bytes.
    given = request.headers.get("X-Gateway-Signature", "").encode()
    return hmac.compare_digest(signature(when, request.body).encode(), given)


def find_id(request):
    if not is_signed(request):
        return None
    ids = request.POST.getall("sessionId")
    return ids[0] if len(ids) == 1 else None  # two are none: choosing one would be a guess


# -- the menu: a function a step -----------------------------------------------------------------


def start(said):
    if said == "1":
        return "END Your balance is 12.50."
    if said == "2":
        session["step"] = "amount"
        return "CON How much?"
    return "CON 1 Balance\n2 Top up"


def amount(said):
    if not (said.isascii() and said.isdigit() and 0 < int(said) <= 100):
        return "CON A number up to 100, please."
    session.update(step="confirm", amount=int(said))
    return f"CON {said}, really?\n1 Yes\n2 No"


def confirm(said):
    return f"END Topped up by {session['amount']}." if said == "1" else "END Nothing was done."


STEPS = {"start": start, "amount": amount, "confirm": confirm}


def dialogue(environ, start_response):
    request = Request(environ)
    response = Response("Not from the gateway.\n", 403, content_type="text/plain", charset="utf-8")
    if session.reason not in ("absent", "malformed"):
        response.status = 200
        response.text = STEPS[session.get("step", "start")](request.POST.get("text", ""))
        if response.text.startswith("END"):
            session.delete()  # the gateway may use the id again
        else:
            session.save()
    return response(environ, start_response)


application = SessionMiddleware(
    dialogue,
    use_cookies=False,
    find_id=find_id,
    strict=False,
    id_key=ID_KEY,
    id_header="none",  # the gateway has the id
    timeout=180,
)


def dial(url, texts):
    """Play the gateway: sign what the telephone says, and print what it shows."""
    id = secrets.token_hex(8)
    for text in ["", *texts]:
        body, when = urlencode({"sessionId": id, "text": text}).encode(), str(int(time.time()))
        headers = {"X-Gateway-Time": when, "X-Gateway-Signature": signature(when, body)}
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as response:
            print(f"{text}\n{response.read().decode()}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        dial(f"http://127.0.0.1:{PORT}/", sys.argv[1:])
    else:
        with make_server("127.0.0.1", PORT, application) as server:
            print(f"http://127.0.0.1:{server.server_port}/", flush=True)
            server.serve_forever()
