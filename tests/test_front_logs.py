"""What docs/ids-in-urls.md prints for the logs of servers in front of us hides every id, however
its address is written. The servers are the real ones."""

import http.client
import os
import re
import shutil
from pathlib import Path

import pytest
from realservers import Server, missing, wait_until

PAGE = Path(__file__).parent.parent / "docs" / "ids-in-urls.md"
MODULES = Path("/usr/lib/apache2/modules")

ID = "Zm9vYmFyMTIzNDU2Nzg5MGFiY2RlZmdoaWprbG1ub-A"
OTHER = "b3RoZXJpZDEyMzQ1Njc4OTBhYmNkZWZnaGlqa2xtb_0"
IN_PERCENTS = "".join(f"%{ord(letter):02x}" for letter in ID)
PARTLY = ID.replace("A", "%41").replace("-", "%2D")


def snippet(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]


class Front(Server):
    """A server with the printed lines, and a second log that hides nothing."""

    @property
    def log(self):
        return self.folder / "access.log"

    @property
    def bare_log(self):
        return self.folder / "bare.log"

    def write(self, *parts):
        (self.folder / "conf").write_text("\n".join(parts))
        return str(self.folder / "conf")

    def ask(self, target):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest("GET", target)
            connection.putheader("Address", "/harmless")
            connection.endheaders()
            connection.getresponse().read()
        finally:
            connection.close()

    def logged(self, targets):
        """Ask for each of *targets*; return the lines in both logs."""
        before = [self.lines(log) for log in (self.log, self.bare_log)]
        for target in targets:
            self.ask(target)
        wanted = [len(lines) + len(targets) for lines in before]
        logs = (self.log, self.bare_log)
        wait_until(lambda: [len(self.lines(log)) for log in logs] == wanted, lambda: "no lines")
        return [self.lines(log)[len(old) :] for log, old in zip(logs, before, strict=True)]

    def expected(self, shown):
        return sorted(each if self.shows_query else each.partition("?")[0] for each in shown)

    @staticmethod
    def lines(log):
        return log.read_text().splitlines() if log.exists() else []


class Nginx(Front):
    program = "nginx"
    shows_query = True

    def command(self):
        temporary = (
            f"{kind}_temp_path {self.folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        path = self.write(
            *("daemon off;", f"pid {self.folder}/pid;", "error_log stderr;", "events {}"),
            *("http {", *temporary, snippet("nginx").replace("/var/log/nginx", str(self.folder))),
            f"log_format bare '$request_uri'; access_log {self.bare_log} bare;",
            f"server {{ listen 127.0.0.1:{self.port}; location / {{ return 204; }} }} }}",
        )
        return [self.program, "-p", str(self.folder), "-c", path, "-e", "stderr"]


class Apache(Front):
    program = "apache2"
    shows_query = False

    def command(self):
        names = ("mpm_event", "authz_core", "setenvif")
        user = ["User nobody", "Group nogroup"] if os.geteuid() == 0 else []
        path = self.write(
            *(f"ServerRoot {self.folder}", "ServerName here", f"PidFile {self.folder}/pid"),
            *("ErrorLog /dev/stderr", f"Listen 127.0.0.1:{self.port}", *user),
            *(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in names),
            f"DocumentRoot {self.folder}",
            snippet("apache").replace("/var/log/apache2", str(self.folder)),
            f'LogFormat "%r" bare\nCustomLog {self.bare_log} bare',
        )
        return [self.program, "-f", path, "-DFOREGROUND"]


@pytest.fixture(scope="module", params=[Nginx, Apache])
def front(request, tmp_path_factory):
    if shutil.which(request.param.program) is None:
        missing(request.param.program, "tests/realservers/install.py")
    server = request.param(tmp_path_factory.mktemp("front"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


#: Addresses with an id; most of them open a session, and the rest shows one to whoever reads it.
HIDDEN = [
    *("/~I", "/~I/", "/~I/cart?a=1", "/shop/~I/cart", "/a/b;sid=I", "/a;sid=I?b=1", "/;sid=I"),
    *("/?sid=I", "/a?b=1&sid=I", "/a?sid=I&b=1", "/a?b=1&sid=I&c=2", "/a?sid=I#x"),
    # Twice, under a name in percents, in path and query at once.
    *("/?sid=I&sid=I", "/?sid=I&sid=O", "/?sid=&sid=I", "/?sid=x&a=1&sid=I"),
    *("/?s%69d=I", "/?%73%69%64=I", "/a?b=1&s%69d=I", "/?sid=x&s%69d=I"),
    *("/~I/?sid=I", "/~I/?sid=O", "/~O/a?s%69d=I", "/a;sid=O?sid=I", "/~O/a;sid=I"),
    *("/~I/~O", "/~O/~I/", "/a;sid=O;sid=I", "/a;sid=x;sid=I", "/a;sid=I/b;sid=O"),
    # Written otherwise, and with more attached.
    *("/%7eI/", "/%7EI", "//~I/", "/./~I/a", "/a/../~I/", "/a/~I/", "/~Ix", "/~I.html", "/~I~O"),
    *("/a%3Bsid=I", "/a%3bsid%3dI", "/a%3Fsid=I", "/a%3fsid%3DI", "/~I%2Fcart", "/~I%3Fa"),
    *("/?sid=P", "/~P/", "/a;sid=P", "/?sid=x&sid=P", "/~Q/", "/?sid=x&sid=Q", "/?b=Q"),
    *("/?a=1&amp;sid=I", "/?sid=%20I", "/?x=y?sid=I", "/??sid=I", "/?a;sid=I", "/?sid=x;sid=I"),
    # In a parameter that holds an address.
    *("/?next=/~I/cart", "/?next=%2F~I%2Fcart", "/?next=%2F%3Fsid%3DI", "/?n=%252F%253Fsid%253DI"),
    *("/?sid=x&next=/?sid=I", "/?SID=I", "/a?sid[]=I", "/I", "/x.I.y"),
]


def written(target):
    for short, text in {"I": ID, "O": OTHER, "P": IN_PERCENTS, "Q": PARTLY}.items():
        target = re.sub(rf"{short}(?![A-Z])(?<!S{short})", lambda _, text=text: text, target)
    return target


def has_id(line):
    line = line.replace("%25", "%").replace("%25", "%")
    shown = re.sub(r"%([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), line)
    return any(part in shown for id in (ID, OTHER) for part in (id[:22], id[-22:]))


def addresses(lines):
    """Several threads may write a log, so in no order."""
    return sorted(re.search(r'"GET (.*?)"', line)[1] for line in lines)


def test_no_address_shows_an_id_however_it_is_written(front):
    targets = [written(target) for target in HIDDEN]
    assert all(has_id(target) for target in targets), "what is asked for has one"
    lines, bare = front.logged(targets)
    assert [line for line in lines if has_id(line)] == []
    assert sum(map(has_id, bare)) > len(bare) / 2, "without the lines the logs have them"


def test_what_is_plain_to_read_is_shown_without_the_id_alone(front):
    targets = ["/~I/cart", "/shop/~I/cart", "/a;sid=I", "/a?b=1&sid=I&c=2", "/~I/a?b=1"]
    lines, _ = front.logged([written(target) for target in targets])
    assert addresses(lines) == front.expected(target.replace("I", "...") for target in targets)


def test_addresses_without_an_id_are_shown_as_they_are(front):
    targets = ["/", "/cart?a=1", "/~ada/notes", "/a;v=1/b", "/%D0%9F%D1%80" * 20, "/a-b/" * 40]
    lines, _ = front.logged(targets)
    assert addresses(lines) == front.expected(targets)
