"""What a browser would make of a page: a tree by the HTML standard, URLs by WHATWG URL.

Written without a look at the rewriter, which it judges: `justhtml` builds the tree, `ada_url`
resolves. Nothing here is fast.
"""

import re

import ada_url
from justhtml import JustHTML

LINKS = {"a": "href", "area": "href", "iframe": "src", "frame": "src"}


class Page:
    def __init__(self, html, url, scripting):
        self.url = url
        self.root = JustHTML(html, sanitize=False, scripting_enabled=scripting).root
        self.elements = list(walk(self.root))
        self.base = self._base()

    def _base(self):
        for element, in_template in self.elements:
            if element.name == "base" and is_html(element) and not in_template:
                href = attributes(element).get("href")
                if href is not None:
                    found = resolved(href, self.url)
                    if found is None or found.protocol in ("data:", "javascript:"):
                        return self.url
                    return found.href
        return self.url

    def destinations(self):
        """Yield (what, URL) for everything that a browser could follow or submit to."""
        for element, _ in self.elements:
            given = attributes(element)
            name = element.name
            if name in LINKS and given.get(LINKS[name]) is not None:
                yield (name, LINKS[name]), resolved(given[LINKS[name]], self.base)
            if name == "a" and not is_html(element) and "xlink:href" in given:
                yield (name, "xlink:href"), resolved(given["xlink:href"], self.base)
            if name == "form":
                action = given.get("action") or self.url
                yield (name, "action"), resolved(action, self.base)
            if name in ("button", "input") and "formaction" in given:
                action = given["formaction"] or self.url
                yield (name, "formaction"), resolved(action, self.base)
            if name == "meta" and (given.get("http-equiv") or "").lower() == "refresh":
                found = re.match(r"\s*[\d.]+\s*[;,]?\s*url\s*=\s*(.*)", given.get("content") or "")
                if found:
                    yield (name, "content"), resolved(found[1], self.base)

    def stolen_fields(self, name, value):
        """Yield where a field of a form would go to another origin."""
        holders, by_id, last = [], {}, None
        for element, in_template in self.elements:
            given = attributes(element)
            by_id.setdefault(given.get("id"), element)
            if in_template or not is_html(element):
                continue
            if element.name == "form":
                last = element
            if element.name == "input" and (given.get("name"), given.get("value")) == (name, value):
                # In a table a form is closed at once, and the parser remembers it for the field.
                siblings = [child for child in element.parent.children if child.name != "#text"]
                at = siblings.index(element)
                is_behind = at and siblings[at - 1] is last and not last.children
                holders.append(last if is_behind else ancestor(element, "form"))
        for element, in_template in self.elements:
            given = attributes(element)
            if in_template or not is_html(element):
                continue
            if element.name == "form":
                form, action = element, given.get("action")
            elif element.name in ("button", "input") and "formaction" in given:
                form = by_id.get(given["form"]) if "form" in given else ancestor(element, "form")
                action = given["formaction"]
            else:
                continue
            target = resolved(action or self.url, self.base)
            if (
                form is not None
                and form in holders
                and target is not None
                and not self.is_own(target)
            ):
                yield target.href

    def told(self, id):
        """Yield what has a browser tell other origins the page's URL, or a link's that has the id.

        A ping names both (HTML, "hyperlink auditing"); the page's only by plain HTTP.
        """
        page_has_id = id in self.url
        for element, _ in self.elements:
            given = attributes(element)
            policies = [given.get("referrerpolicy")]
            if is_policy(element):
                policies.append(given.get("content"))
            if any(map(is_lax, policies)):
                yield element.name
            if element.name not in ("a", "area") or given.get("href") is None:
                continue
            link = resolved(given["href"], self.base)
            has_id = page_has_id or (link is not None and id in link.href)
            if has_id and self._pings_abroad(given):
                yield "ping"

    def _pings_abroad(self, given):
        urls = [resolved(url, self.base) for url in (given.get("ping") or "").split()]
        return any(url is None or not self.is_own(url) for url in urls)

    def is_own(self, url):
        own = ada_url.URL(self.url)
        return (url.protocol, url.host) == (own.protocol, own.host)

    def outline(self, name):
        """Return the tree as a list in which nothing is left of the id: URLs as they resolve.

        Where a base has been cut, links lead elsewhere on purpose, and only their number counts.
        """
        is_cut = any("data-href" in attributes(element) for element, _ in self.elements)
        has_base = any(element.name == "base" for element, _ in self.elements)
        found = []
        for element, _ in self.elements:
            given = attributes(element)
            # A link without a rel is what is left of a base that is cut in the dark.
            kind = "base" if element.name == "link" and "rel" not in given else element.name
            if kind == "input" and given.get("type") == "hidden" and given.get("name") == name:
                continue
            if kind == "base":
                given = {key.removeprefix("data-"): text for key, text in given.items()}
            if kind in ("form", "button", "input"):
                key = "action" if kind == "form" else "formaction"
                if kind == "form" or key in given:
                    given[key] = given.get(key) or self.url
            if is_lax(given.get("referrerpolicy")):
                given["referrerpolicy"] = "same-origin"
            if is_policy(element) and is_lax(given.get("content")):
                given["content"] = "same-origin"
            # Under a base that a browser ignores, a ping may be taken for one to another origin.
            if (
                kind in ("a", "area")
                and "ping" in given
                and (has_base or self._pings_abroad(given))
            ):
                given["ping"] = ""
            for key in given.keys() & URLS.get(kind, set()):
                given[key] = "" if is_cut else self._without(given[key], name, kind == "meta")
            found.append((depth(element), kind, element.namespace, sorted(given.items(), key=str)))
        return found

    def _without(self, text, name, is_refresh):
        """Return where a URL leads, less a query parameter of this name."""
        before, mark, url = (text or "").rpartition("url=")
        if is_refresh and not mark and re.fullmatch(r"[\d.]+", text or ""):
            before, url = text, self.url  # a refresh of the page itself
        found = resolved(url, self.base)
        if found is None:
            return text
        query = [p for p in found.search[1:].split("&") if p and p.partition("=")[0] != name]
        return before.rstrip(";"), found.protocol, found.host, found.pathname, query, found.hash


#: What may change at all.
URLS = {
    "a": {"href", "xlink:href"},
    "area": {"href"},
    "iframe": {"src"},
    "frame": {"src"},
    "form": {"action"},
    "button": {"formaction"},
    "input": {"formaction"},
    "meta": {"content"},
}

#: Elements that a browser opens again behind what has closed them. A field in a form can make
#: it do so a little sooner than the text behind the field.
REOPENED = {
    *("a", "b", "big", "code", "em", "font", "i", "nobr"),
    *("s", "small", "strike", "strong", "tt", "u"),
}


def settled(outline):
    """Return an outline without the elements that may be opened again."""
    return [row[1:] for row in outline if row[1] not in REOPENED]


def is_policy(element):
    name = attributes(element).get("name") or ""
    return element.name == "meta" and name.lower() == "referrer"


def is_lax(policy):
    """Whether other origins may be told a whole URL: the last word that is a policy decides, or
    the whole where lists are not read."""
    words = re.findall(r"[^\s,]+", (policy or "").lower())
    return any(word in ("unsafe-url", "no-referrer-when-downgrade", "always") for word in words)


def resolved(url, base):
    try:
        return ada_url.URL(url, base=base)
    except ValueError:
        return None


def attributes(element):
    return dict(getattr(element, "attrs", None) or {})


def is_html(element):
    return element.namespace in (None, "html", "http://www.w3.org/1999/xhtml")


def ancestor(element, name):
    while element is not None and element.name != name:
        element = element.parent
    return element


def depth(element):
    count = 0
    while element.parent is not None:
        element = element.parent
        count += 1
    return count


def walk(node, in_template=False):
    """Yield every element below *node*, and whether it is inert."""
    stack = [(child, in_template) for child in reversed(node.children or [])]
    while stack:
        element, inert = stack.pop()
        if not element.name.startswith(("#", "!")):
            yield element, inert
        inert = inert or (element.name == "template" and is_html(element))
        stack += [(child, inert) for child in reversed(getattr(element, "children", None) or [])]
        content = getattr(element, "template_content", None)
        if content is not None:
            stack += [(child, True) for child in reversed(content.children or [])]
