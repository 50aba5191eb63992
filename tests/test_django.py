"""A framework that keeps the mount of its first request: Django makes the URLs of static files once
in a process."""

import re
import subprocess
import sys

import pytest

SITE = '''
import sys

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.template import Context, Template
from django.urls import path

static_url, rewrite = sys.argv[1:]
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="__main__",
    SECRET_KEY="of Django, for tests",
    STATIC_URL=static_url,
    MEDIA_URL=static_url.replace("static", "media"),
    INSTALLED_APPS=["django.contrib.staticfiles"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
django.setup()

PAGE = """{% load static %}<!doctype html>
<link rel=stylesheet href="{% static 'x.css' %}"><img src="{% get_media_prefix %}me.png">
<a href="{% static 'list.pdf' %}">list</a>"""


def page(request):
    from nocookie import session

    session["n"] = session.get("n", 0) + 1
    session.save()
    return HttpResponse(Template(PAGE).render(Context()))


urlpatterns = [path("", page)]

from webtest import TestApp

from nocookie import SessionMiddleware

def said(event):
    if event.name == "leak":
        leaks.append(event.detail)

leaks = []
app = TestApp(
    SessionMiddleware(
        get_wsgi_application(), use_cookies=False, find_id="path:~", rewrite=rewrite, on_event=said,
        secret="a secret for tests, long enough",
    )
)
def begin():
    fresh = TestApp(
        SessionMiddleware(
            begun, use_cookies=False, find_id="path:~", type=app.app.manager.backend.store,
            secret="a secret for tests, long enough",
        )
    )
    return fresh.get("/").headers["X-Session-Id"]

def begun(environ, start_response):
    from nocookie import session

    session["n"] = 1
    session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]

ada, eve = begin(), begin()
for path in (f"/~{ada}/", f"/~{eve}/", "/"):
    leaks.clear()
    text = app.get(path).text
    print(len([line for line in text.split('"') if ada in line]), ",".join(leaks) or "-", sep=";")
'''


def run(tmp_path, static_url, rewrite):
    pytest.importorskip("django")
    site = tmp_path / "site.py"
    site.write_text(SITE)
    done = subprocess.run(
        [sys.executable, str(site), static_url, rewrite],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return re.findall(r"(\d+);(.*)", done.stdout)


@pytest.mark.parametrize("rewrite", ["off", "location", "html"])
def test_the_first_visitors_id_on_the_page_of_others_is_noticed(tmp_path, rewrite):
    others = ("2" if rewrite == "html" else "3", "to another visitor, in a page")
    assert run(tmp_path, "static/", rewrite) == [("3", "-"), others, others]


@pytest.mark.parametrize("rewrite", ["off", "location", "html"])
def test_with_a_slash_before_it_is_on_none(tmp_path, rewrite):
    first = ("1" if rewrite == "html" else "0", "-")  # the link, which is ours
    assert run(tmp_path, "/static/", rewrite) == [first, ("0", "-"), ("0", "-")]
