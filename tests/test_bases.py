"""`values = base`: values of subclasses are kept as their plain types."""

import collections
import enum
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import markupsafe
import pytest

from nocookie import ConfigError, Session, SessionMiddleware, ValueRefused
from nocookie.codecs import MAX_DEPTH, JsonCodec
from nocookie.stores.memory import MemoryStore


class Zone(ZoneInfo):
    pass


class Size(enum.IntEnum):
    LARGE = 3


class Colour(enum.StrEnum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


def of(kind):
    """A subclass that says other things of itself than the plain type does."""
    liar = {"__repr__": lambda self: "liar", "__str__": lambda self: "liar"}
    return type(f"My{kind.__name__}", (kind,), liar)


Thing = of(dict)
BERLIN = Zone("Europe/Berlin")

CASES = [
    (Size.LARGE, 3),
    (Colour.RED, "red"),
    (of(str)("text"), "text"),
    (of(int)(7), 7),
    (of(float)(1.5), 1.5),
    (of(bytes)(b"\0x"), b"\0x"),
    (of(bytearray)(b"\0x"), bytearray(b"\0x")),
    (of(list)([1, Size.LARGE]), [1, 3]),
    (of(tuple)((1, Colour.RED)), (1, "red")),
    (of(set)({1}), {1}),
    (of(frozenset)({Colour.RED}), frozenset({"red"})),
    (Thing(a=Thing(b=of(list)([1]))), {"a": {"b": [1]}}),
    (Point(1, 2), (1, 2)),
    (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (collections.defaultdict(list, a=[1]), {"a": [1]}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    ({Size.LARGE: Colour.RED}, {3: "red"}),
    (of(date)(2026, 1, 2), date(2026, 1, 2)),
    (of(time)(1, 2, 3, 4, UTC, fold=1), time(1, 2, 3, 4, UTC, fold=1)),
    (
        of(datetime)(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
        datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    ),
    (of(timedelta)(1, 2, 3), timedelta(1, 2, 3)),
    (of(Decimal)("1.10"), Decimal("1.10")),
    (of(UUID)(int=5), UUID(int=5)),
    ([1, {"a": (Size.LARGE,)}], [1, {"a": (3,)}]),
]


class Written(MemoryStore):
    """Remembers which values each save has sent."""

    def __init__(self):
        super().__init__()
        self.names = []

    def save(self, key, delta, *rest):
        self.names.append(set(delta.set))
        super().save(key, delta, *rest)


def types_of(value):
    kind = type(value)
    if kind is dict:
        return kind, [(types_of(k), types_of(v)) for k, v in value.items()]
    if kind in (list, tuple):
        return kind, [types_of(item) for item in value]
    if kind in (set, frozenset):
        return kind, {types_of(item) for item in value}
    return kind


@pytest.fixture(params=["plain", "sealed"])
def options(request):
    return {"plain": {}, "sealed": {"secret": "s" * 32}}[request.param]


def stored(value, **options):
    session = Session({}, **options)
    session["value"] = value
    session.save()
    return Session({}, id=session.id, **options)["value"]


@pytest.mark.parametrize(("value", "plain"), CASES)
def test_a_value_of_a_subclass_comes_back_as_its_plain_type(value, plain, options):
    found = stored(value, values="base", **options)
    assert found == plain
    assert types_of(found) == types_of(plain)
    if isinstance(plain, datetime | time):
        assert found.fold == plain.fold and type(found.tzinfo) is type(plain.tzinfo)


@pytest.mark.parametrize(("value", "plain"), CASES)
def test_without_the_option_it_is_refused_by_name(value, plain, options):
    with pytest.raises(ValueRefused, match=r"session\['value'\]"):
        stored(value, **options)


def test_an_ordered_dict_keeps_its_own_order():
    value = collections.OrderedDict(a=1, b=2)
    value.move_to_end("a")
    assert list(stored(value, values="base")) == ["b", "a"]


@pytest.mark.parametrize("values", ["exact", "base"])
def test_markup_is_a_type_of_its_own(values, options):
    for value in (markupsafe.Markup("<b>x</b>"), [markupsafe.Markup("&amp;")]):
        found = stored(value, values=values, **options)
        assert found == value and repr(found) == repr(value)


def test_where_markupsafe_is_gone_markup_is_text_that_templates_escape(monkeypatch):
    data = JsonCodec().dumps(markupsafe.Markup("<b>"))
    monkeypatch.setitem(__import__("sys").modules, "markupsafe", None)
    found = JsonCodec().loads(data)
    assert (found, type(found)) == ("<b>", str)


@pytest.mark.parametrize("value", [object(), enum.Enum("Odd", "A").A, [object()], 1j])
def test_what_is_of_no_plain_type_stays_refused(value):
    with pytest.raises(ValueRefused, match="no type that a session holds"):
        stored(value, values="base")


def test_a_circle_of_subclasses_is_refused():
    circle = Thing()
    circle["self"] = circle
    with pytest.raises(ValueRefused, match="in a circle"):
        stored(circle, values="base")


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 2])
def test_subclasses_may_be_nested_as_deep_as_plain_types(depth):
    def outcome(kind):
        value = kind(x=Size.LARGE if kind is Thing else 3)
        for _ in range(depth):
            value = kind(x=value)
        try:
            return stored(value, values="base")
        except ValueRefused:
            return "refused"

    assert outcome(Thing) == outcome(dict)


def test_a_change_in_place_of_what_was_saved_is_saved_too():
    session = Session({}, values="base")
    session["order"] = order = collections.OrderedDict(a=1)
    session.save()
    order["b"] = 2
    session.save()
    assert Session({}, id=session.id, values="base")["order"] == {"a": 1, "b": 2}


def test_a_value_that_did_not_change_is_not_written_again():
    store = Written()
    session = Session({}, type=store, values="base")
    session["order"] = collections.OrderedDict(a=1)
    session["n"] = 1
    session.save()
    session["n"] = 2
    session.save()
    later = Session({}, id=session.id, type=store, values="base")
    assert later["order"] == {"a": 1}
    later["n"] = 3
    later.save()
    assert store.names == [{"n"}, {"n"}]


def test_it_says_nothing_beside_pickle():
    with pytest.raises(ConfigError, match="values = base is for JSON"):
        SessionMiddleware(None, data_serializer="pickle", secret="s" * 32, values="base")
