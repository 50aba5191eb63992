"""Values to bytes and back: exactly, or not at all."""

import base64
import collections
import contextlib
import enum
import json
import math
import os
import pickle
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocookie.codecs import MAX_DEPTH, JsonCodec, PickleCodec, Undecodable

codec = JsonCodec()


def exact(value):
    """*value* in a form in which what differs in type, sign, fold or zone differs."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, [exact(item) for item in value]
    if kind in (set, frozenset):
        return kind, sorted((exact(item) for item in value), key=repr)
    if kind is dict:
        return kind, [(exact(key), exact(item)) for key, item in value.items()]
    if kind in (datetime, time):
        return kind, value.replace(tzinfo=None).isoformat(), value.fold, exact(value.tzinfo)
    if kind is ZoneInfo:
        return kind, value.key
    return kind, repr(value)


def round_trip(value):
    return codec.loads(codec.dumps(value))


# -- what is held --------------------------------------------------------------------------------


@st.composite
def zones(draw):
    """A function: in the words of Hypothesis the strategies below would be too long."""
    kind = draw(st.sampled_from(["none", "UTC", "of the world", "offset", "named offset"]))
    if kind == "none":
        return None
    if kind == "UTC":
        return UTC
    if kind == "of the world":
        names = ["Europe/Berlin", "America/New_York", "UTC", "Asia/Kathmandu"]
        return ZoneInfo(draw(st.sampled_from(names)))
    widest = timedelta(hours=23, minutes=59)
    offset = draw(st.timedeltas(-widest, widest))
    if kind == "offset":
        return timezone(offset)
    return timezone(offset, draw(st.sampled_from(["EST", "", "!dict", "\ud800"])))


ZONES = zones()


def _has_pair(text):
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass") != text


#: Surrogates too. For pairs of them see the test of their own.
TEXT = st.text(st.characters()).filter(lambda text: not _has_pair(text))
HASHABLE_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    TEXT,
    st.sampled_from(["!tuple", "!dict", "!", "\ud800", "\udfff\ud800", "\0"]),
    st.binary(),
    st.dates(),
    st.datetimes(timezones=ZONES, allow_imaginary=True),
    st.times(timezones=ZONES),
    st.builds(lambda moment: moment.replace(fold=1), st.datetimes(timezones=ZONES)),
    st.builds(lambda moment: moment.replace(fold=1), st.times(timezones=ZONES)),
    st.timedeltas(),
    st.decimals(),
    st.sampled_from([Decimal("-0"), Decimal("1E+999999"), Decimal("sNaN"), Decimal("1.10")]),
    st.uuids(),
)
HASHABLE = st.recursive(
    HASHABLE_SCALARS.filter(lambda value: not _is_signalling(value)),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)


def _is_signalling(value):
    return type(value) is Decimal and value.is_snan()


VALUES = st.recursive(
    HASHABLE_SCALARS | st.binary().map(bytearray),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(TEXT, inner, max_size=4),
        st.dictionaries(st.sampled_from(["!tuple", "!x", "!", "a"]), inner, max_size=2),
        st.dictionaries(HASHABLE, inner, max_size=3),
        st.sets(HASHABLE, max_size=4),
        st.frozensets(HASHABLE, max_size=4),
    ),
    max_leaves=12,
)


@given(VALUES)
def test_every_value_comes_back_exactly(value):
    assert exact(round_trip(value)) == exact(value)


def test_a_fixed_offset_keeps_its_name_and_one_that_was_stored_without_is_read():
    noon = datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=-5), "EST"))
    assert round_trip(noon).tzname() == "EST"
    assert round_trip(noon.timetz()).tzname() == "EST"
    old = codec.loads(b'j{"!datetime":["2024-01-01T12:00:00",0,-18000.0]}')
    assert (old, old.tzname()) == (noon, "UTC-05:00")


@given(VALUES)
def test_an_unchanged_value_has_the_same_bytes(value):
    """Or else a session that was only read would look changed."""
    data = codec.dumps(value)
    assert codec.dumps(value) == data
    assert codec.dumps(codec.loads(data)) == data


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        -0.0,
        5e-324,
        1.7976931348623157e308,
        0.1 + 0.2,
        True,
        1,
        1.0,
        10**4000,
        -(10**4000),
        "",
        "\ud83d",
        "\ude00\ud83d",
        "\U0001f600",
        "\0",
        b"",
        bytes(range(256)),
        bytearray(b"\xff"),
        (),
        (1,),
        [],
        {},
        set(),
        frozenset(),
        {1: "a", "1": "b", None: "c", (1, 2): "d", b"x": "e", True + 1: "f"},
        {"!tuple": [1, 2]},
        {"!dict": [[1, "one"]]},
        {"!unknown": 1},
        {"!": 1, "a": 2},
        {"": 1},
        {"a": {"!set": [1]}},
        {math.nan: 1},
        [[], [[]], {}, [{}]],
        ((1, (2, (3,))), [(4,)]),
        {(1, frozenset({2, (3,)}))},
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2024, 10, 27, 2, 30, fold=0, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45, seconds=7))),
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(microseconds=-1))),
        datetime.min,
        datetime.max,
        date.min,
        time.max,
        time(1, 2, 3, 4, tzinfo=UTC),
        timedelta.min,
        timedelta.max,
        timedelta(microseconds=-1),
        Decimal("0.10"),
        Decimal("NaN"),
        Decimal("-Infinity"),
        UUID(int=0),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_the_corners_come_back_exactly(value):
    assert exact(round_trip(value)) == exact(value)


def test_surrogates_that_are_two_stay_two():
    assert len(round_trip("\ud83d\ude00")) == 2
    assert len(round_trip(["\ud83d\ude00"])[0]) == 2


def test_nesting_is_held_up_to_the_limit_and_refused_past_it():
    for wrap in (
        lambda inner: [inner],
        lambda inner: (inner,),
        lambda inner: {"a": inner},
        lambda inner: {1: inner},
        lambda inner: frozenset({inner}),
    ):
        value = 0
        for _ in range(MAX_DEPTH + 1):
            value = wrap(value)
        assert exact(round_trip(value)) == exact(value)
        with pytest.raises(ValueError, match="nested more than 64 deep"):
            codec.dumps(wrap(value))


SETS = st.sets(st.integers() | TEXT | st.tuples(st.integers(), TEXT), max_size=12)


@given(SETS, st.randoms())
def test_equal_sets_have_equal_bytes(members, dice):
    shuffled = list(members)
    dice.shuffle(shuffled)
    other = set()
    for member in shuffled:
        other.add(member)
    assert codec.dumps(other) == codec.dumps(members)
    assert codec.dumps(frozenset(other)) == codec.dumps(frozenset(members))


def test_sets_have_the_same_bytes_in_every_process():
    """Whatever the seed of its string hashes."""
    code = (
        "from nocookie.codecs import JsonCodec\n"
        "print(JsonCodec().dumps({'a', 'b', 'c', b'd', ('e', 1), frozenset('fgh')}).hex())\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


# -- what is refused -----------------------------------------------------------------------------


class Colour(enum.IntEnum):
    RED = 1


class Markup(str):
    pass


class MyDict(dict):
    pass


class MyTime(datetime):
    pass


class MyZone(tzinfo):
    def utcoffset(self, moment):
        return timedelta(0)


Point = collections.namedtuple("Point", "x y")

REFUSED = [
    (Colour.RED, "Colour"),
    (Markup("a"), "Markup"),
    (Point(1, 2), "Point"),
    (collections.OrderedDict(a=1), "OrderedDict"),
    (collections.defaultdict(list), "defaultdict"),
    (MyDict(), "MyDict"),
    (MyTime(2024, 1, 1), "MyTime"),
    (object(), "object"),
    (object, "type"),
    (1j, "complex"),
    (range(3), "range"),
    (iter([]), "iterator"),
    (memoryview(b""), "memoryview"),
    (test_surrogates_that_are_two_stay_two, "function"),
    (datetime(2024, 1, 1, tzinfo=MyZone()), "MyZone"),
]


@pytest.mark.parametrize(("value", "name"), REFUSED, ids=[name for _, name in REFUSED])
def test_what_would_come_back_as_something_else_is_refused_by_name(value, name):
    for holder in (value, [value], {"a": value}, {1: value}, (value,)):
        with pytest.raises(TypeError, match=name):
            codec.dumps(holder)


def test_a_refusal_says_what_to_do():
    with pytest.raises(TypeError, match="convert it, or set data_serializer = pickle"):
        codec.dumps(object())


def test_keys_and_members_of_other_types_are_refused_too():
    with pytest.raises(TypeError, match="Colour"):
        codec.dumps({Colour.RED: 1})
    with pytest.raises(TypeError, match="Markup"):
        codec.dumps({Markup("a"): 1})
    with pytest.raises(TypeError, match="Point"):
        codec.dumps({Point(1, 2)})


def test_circles_are_refused():
    circle = []
    circle.append(circle)
    with pytest.raises(ValueError, match="circle"):
        codec.dumps(circle)
    circle = {}
    circle["a"] = (circle,)
    with pytest.raises(ValueError, match="circle"):
        codec.dumps(circle)


def test_an_int_too_long_to_be_text_is_refused_at_once():
    for value in (10**5000, [10**5000]):
        with pytest.raises(ValueError, match="digits"):
            codec.dumps(value)


# -- bytes that are not ours ---------------------------------------------------------------------


def decodes_or_refuses(data, codec=codec):
    """Anything else that it raises fails the test."""
    with contextlib.suppress(Undecodable):
        codec.loads(data)


@given(st.binary())
def test_any_bytes_are_a_value_or_undecodable(data):
    for form in (b"", b"j", b"s", b"i", b'j{"!'):
        decodes_or_refuses(form + data)


@given(VALUES, st.data())
def test_bytes_that_were_cut_or_flipped_are_a_value_or_undecodable(value, data):
    whole = codec.dumps(value)
    decodes_or_refuses(whole[: data.draw(st.integers(0, len(whole)))])
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    decodes_or_refuses(bytes(flipped))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
TAGS = [
    *("!tuple", "!set", "!frozenset", "!bytes", "!bytearray", "!datetime", "!time", "!date"),
    *("!timedelta", "!decimal", "!uuid", "!dict", "!unknown", "!"),
]


@pytest.mark.parametrize("tag", TAGS)
@given(content=JSON)
def test_a_tag_with_any_content_is_a_value_or_undecodable(tag, content):
    decodes_or_refuses(b"j" + json.dumps({tag: content}).encode("ascii"))


@pytest.mark.parametrize(
    "content",
    [
        ["2024-01-01T00:00:00", 0, "../../../etc/passwd"],
        ["2024-01-01T00:00:00", 0, "/etc/passwd"],
        ["2024-01-01T00:00:00", 0, "Europe"],
        ["2024-01-01T00:00:00", 0, "zone.tab"],
        ["2024-01-01T00:00:00", 0, "a" * 10_000],
        ["2024-01-01T00:00:00", 0, "\0"],
        ["2024-01-01T00:00:00", 0, "\ud800"],
        ["2024-01-01T00:00:00", 0, ""],
        ["2024-01-01T00:00:00", 0, {}],
        ["2024-01-01T00:00:00", 0, 1e300],
        ["2024-01-01T00:00:00", 0, math.nan],
        ["2024-01-01T00:00:00", 0, [0]],
        ["2024-01-01T00:00:00", 0, [0, 5]],
        ["2024-01-01T00:00:00", 0, [math.nan, "EST"]],
        ["2024-01-01T00:00:00", 7, None],
        ["2024-01-01T00:00:00", "0", None],
        ["", 0, None],
        [5, 0, None],
        [],
        [1, 2, 3, 4],
        "abc",
    ],
    ids=lambda content: repr(content)[:40],
)
def test_a_time_that_is_none_is_undecodable(content):
    data = b"j" + json.dumps({"!datetime": content}).encode("ascii")
    with pytest.raises(Undecodable):
        codec.loads(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"j",
        b"i",
        b"x1",
        b"p1",
        b"1",
        b"j1 ",
        b"j1x",
        b"j 1",
        b"j{",
        b"j" + b"[" * 100_000,
        b"j" + b'{"a":' * 100_000,
        b"j" + b"1" * 10_000,
        b"i" + b"1" * 10_000,
        b'j"\xe9"',
        b"s\xff",
        b'j{"!uuid":5}',
        b'j{"!unknown":5}',
        b'j{"!set":[[]]}',
        b"jNaNx",
    ],
    ids=lambda data: repr(data[:16]),
)
def test_what_we_never_write_is_undecodable(data):
    with pytest.raises(Undecodable):
        codec.loads(data)


def test_why_bytes_are_undecodable_says_nothing_of_their_content():
    with pytest.raises(Undecodable) as caught:
        codec.loads(b'j{"password": "hunter2", ')
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


# -- pickle --------------------------------------------------------------------------------------


class Bomb:
    went_off = False

    def __reduce__(self):
        return (_go_off, ())


def _go_off():
    Bomb.went_off = True


def test_a_pickle_given_to_the_json_codec_never_runs():
    for bomb in (pickle.dumps(Bomb()), b"p" + pickle.dumps(Bomb())):
        for form in (b"", b"j", b"s", b"i"):
            decodes_or_refuses(form + bomb)
        decodes_or_refuses(b'j{"!bytes": "' + base64.b64encode(bomb) + b'"}')
    assert not Bomb.went_off
    PickleCodec().loads(b"p" + pickle.dumps(Bomb()))
    assert Bomb.went_off, "the bomb is none, so the test above shows nothing"
    Bomb.went_off = False


@given(VALUES)
def test_the_pickle_codec_reads_what_the_json_codec_wrote(value):
    assert exact(PickleCodec().loads(codec.dumps(value))) == exact(value)


def test_the_json_codec_reads_what_the_pickle_codec_wrote_as_undecodable():
    with pytest.raises(Undecodable):
        codec.loads(PickleCodec().dumps(object))


@pytest.mark.parametrize("value", [Colour.RED, Markup("a"), Point(1, 2), {1: {2: MyDict(a=1)}}])
def test_the_pickle_codec_holds_any_type(value):
    back = PickleCodec().loads(PickleCodec().dumps(value))
    assert (type(back), back) == (type(value), value)


class Hostile:
    def __reduce__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("value", [lambda: 0, Hostile(), [Hostile()], (i for i in ())])
def test_what_pickle_refuses_is_a_type_error(value):
    with pytest.raises(TypeError, match="cannot be pickled"):
        PickleCodec().dumps(value)


@given(st.binary())
def test_any_bytes_are_a_pickled_value_or_undecodable(data):
    """Authenticated bytes may still be of a class that has moved since. (Not arbitrary ones:
    what they could make pickle do is why they are authenticated.)"""
    decodes_or_refuses(data.lstrip(b"p"), PickleCodec())
    whole = PickleCodec().dumps(["a", {"b": 1}])
    decodes_or_refuses(whole[: len(data)], PickleCodec())


def test_a_class_that_is_gone_is_undecodable():
    data = b"p" + pickle.dumps(Colour.RED, 0).replace(b"Colour", b"Moved!")
    with pytest.raises(Undecodable):
        PickleCodec().loads(data)
