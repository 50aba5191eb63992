"""Three applications that know nothing of one another, nor of how the session id travels.

Each is an `app_factory`, as PasteDeploy calls them. The session is where Beaker puts it.
"""

from webob import Response
from webob.dec import wsgify
from webob.exc import HTTPForbidden


def home(global_conf):
    @wsgify
    def application(request):
        session = request.environ["beaker.session"]
        if request.path_info == "/login":
            session["user"] = request.POST["name"]
            session.regenerate_id()
        elif request.path_info == "/logout":
            session.delete()
        lines = [f"{session.get('user', 'stranger')} was here", *session.get("asked", [])]
        return Response("\n".join(lines) + "\n", content_type="text/plain", charset="utf-8")

    return application


def service_broker(global_conf):
    """Remembers what the visitor asked it for."""

    @wsgify
    def application(request):
        session = request.environ["beaker.session"]
        session.setdefault("asked", []).append(request.path_info.strip("/"))
        session.save()
        return Response(json=session["asked"])

    return application


def cross_domain_proxy(global_conf):
    """Lets visitors through whom `home` knows."""

    @wsgify
    def application(request):
        user = request.environ["beaker.session"].get("user")
        if user is None:
            raise HTTPForbidden()
        return Response(json={"fetched for": user})

    return application
