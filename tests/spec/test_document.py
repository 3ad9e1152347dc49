"""Any bytes and any path end in a document or in problems; places are right."""

import math
import os
import tomllib
from datetime import date, datetime, time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowmbpo.spec import document, toml_positions
from flowmbpo.spec.problems import Problem, RegistryError
from flowmbpo.spec.registry import load_registry, parse_registry


def problems_of(content: bytes) -> list[Problem]:
    try:
        parse_registry(content)
    except RegistryError as error:
        return error.problems
    return []


def accept_or_refuse(content: bytes) -> None:
    """The only two things that may happen; a refusal names a line of the text."""
    lines = content.count(b"\n") + 1
    for problem in problems_of(content):
        assert 1 <= problem.place.line <= lines
        assert problem.place.column >= 1
        assert str(problem).isprintable() or "\n" in str(problem)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes(content):
    accept_or_refuse(content)


PIECES = st.sampled_from(
    [
        "[experiments.a]", "[experiments.a.train]", "[[experiments.a]]", "[experiments.a.world_model]", "[groups.g]",
        "[references.r]", "[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\n", "\r\n", "\r", " ", "\t", "#", '"', "'",
        '"""', "'''", "\\", "\\u0041", "\\uD800", "kind", "mlp", "flow", '"flow"', "units", "horizon", "extends", '"a"',
        "abstract", "true", "True", "16", "1e999", "nan", "-inf", "0x", "0xff", "1_0", "2025-11-18", "07:32:00", "é",
        "\x00", "\x1b", "\ufeff", "\u202e", "members", "varies", "question", "aliases", "resources.options", "train",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_almost_toml(text):
    accept_or_refuse(text.encode("utf-8", "surrogatepass"))


SHIPPED = (document.Path(__file__).resolve().parents[2] / "experiments.toml").read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(SHIPPED) - 1), st.binary(max_size=6), st.integers(0, 40))
def test_the_shipped_registry_with_a_hole(position, inserted, removed):
    accept_or_refuse(SHIPPED[:position] + inserted + SHIPPED[position + removed :])


# --- hostile content: what would make a naive reader recurse, or take quadratic time --------------------------------

SIZE = 450_000
HOSTILE = {
    "nested lists": b"a=" + b"[" * SIZE,
    "nested tables": b"a=" + b"{a=" * (SIZE // 3),
    "dotted key": b"a" + b".a" * (SIZE // 2) + b"=1",
    "dotted header": b"[a" + b".a" * (SIZE // 2) + b"]",
    "brackets": b"[" * SIZE,
    "long number": b"[experiments.a]\ntrain.horizon=" + b"9" * SIZE,
    "long hexadecimal": b"[experiments.a]\ntrain.horizon=0x" + b"f" * SIZE,
    "long key": b"[experiments.a]\n" + b"k" * SIZE + b"=1",
    "unclosed text": b'a="""' + b'\\"a' * (SIZE // 3),
    "unclosed lists": b"a = [1,\n" * (SIZE // 8),
    "escaped quotes": b'a="""\\"""\n' * (SIZE // 10),
    "many empty": b"".join(b"[experiments.e%d]\n" % i for i in range(20_000)),
    "many children": b"[experiments.a]\n" + b"".join(b'[experiments.e%d]\nextends="a"\n' % i for i in range(13_000)),
    "long ancestry": b"".join(b'[experiments.e%d]\nextends="e%d"\n' % (i, i + 1) for i in range(11_000)),
    "many unknown keys": b"[experiments.a]\n" + b"".join(b"horizo%d=1\n" % i for i in range(30_000)),
    "inherited options": b"[experiments.a.resources.options]\n"
    + b"".join(b"k%d=1\n" % i for i in range(20_000))
    + b"".join(b'[experiments.e%d]\nextends="a"\n' % i for i in range(900)),
    "the same key": b"a=1\n" * (SIZE // 4),
    "no values": b"".join(b"a%d=\n" % i for i in range(50_000)),
    "NUL": b"\x00" * SIZE,
    "carriage returns": b"#" + b"\r" * SIZE,
    "line ends": b"\n" * SIZE,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_content(case):
    assert len(HOSTILE[case]) <= document.MAX_BYTES
    with pytest.raises(RegistryError):
        parse_registry(HOSTILE[case])


@pytest.mark.parametrize(
    ("content", "line", "column", "said"),
    [
        (b"a = 1\nb = \xff\n", 2, 5, "0xff is not UTF-8"),
        ("a = 1".encode("utf-16"), 1, 1, "UTF-16"),
        (b"a = 1\nb = \x00\n", 2, 5, "not valid TOML"),
        (b"x = 1\ny = [1,\n  2\nz = 3", 2, 5, "noticed on line 4"),
        (b"x = 1\n\n\nx = 2\n", 4, 1, "first on line 1"),
        (b'a = """never\nclosed', 1, 5, "noticed on line 2"),
    ],
)
def test_encoding_and_syntax(content, line, column, said):
    problem = document.parse(content, "f").problems[0]
    assert (problem.place.line, problem.place.column) == (line, column)
    assert said in problem.message


def test_byte_order_mark_and_windows_line_ends_are_no_mistake():
    parsed = document.parse(b"\xef\xbb\xbfa = 1\r\nb = 2\r\n", "f")
    assert parsed.data == {"a": 1, "b": 2}
    assert parsed.place(("b",), of_key=False).line == 2


def test_several_mistakes_of_syntax_and_what_is_right_between_them():
    parsed = document.parse(b"a = word\nb = 2\nc = [1,\nd = 4\n", "f")
    assert [problem.place.line for problem in parsed.problems] == [1, 3]
    assert parsed.data == {"b": 2, "d": 4}


@pytest.mark.parametrize(
    "written", ["horizon = 007", "train = {horizon = 007}", "units = [8, 007]", "horizon = -07 # x"]
)
def test_a_number_with_leading_zeros_is_shown_as_it_should_be(written):
    (problem,) = document.parse(f"[a]\n{written}\n".encode(), "f.toml").problems
    assert problem.message in ("not valid TOML: 007", "not valid TOML: 07")
    assert problem.hint == "write 7"
    assert problem.place.line == 2


@pytest.mark.parametrize("written", ["day = 2026-07-08", "time = 07:32:00", 'text = "= 007"', "zero = 0.5"])
def test_what_only_looks_like_leading_zeros(written):
    assert not document.parse(f"[a]\n{written}\n".encode(), "f.toml").problems
    assert "write" not in document.parse(f"[a]\n{written} )\n".encode(), "f.toml").problems[0].hint


# --- paths -----------------------------------------------------------------------------------------------------------


def test_paths_that_are_no_registry(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(10**12)  # sparse
    for path in (tmp_path, fifo, loop, large, tmp_path / "none", document.Path("/dev/zero"), document.Path("a\0b")):
        with pytest.raises(RegistryError) as caught:
            load_registry(path)
        assert caught.value.problems[0].place.line == 1
    with pytest.raises(RegistryError, match="1: not a regular file"):
        load_registry(fifo)
    (tmp_path / "folder" / "experiments.toml").mkdir(parents=True)
    with pytest.raises(RegistryError, match="hint: name a TOML file"):
        load_registry(tmp_path / "folder" / "experiments.toml")
    with pytest.raises(RegistryError, match="hint: name a TOML file"):
        load_registry(tmp_path / "folder")  # no file in it either


def test_a_registry_that_is_a_link_to_nothing_is_told_and_no_other_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments.toml").symlink_to("gone.toml")
    with pytest.raises(RegistryError) as caught:
        load_registry()
    assert "a link to gone.toml" in caught.value.problems[0].message


# --- positions -------------------------------------------------------------------------------------------------------


def test_positions_by_hand():
    text = (
        'a = 1\n[t."x y".z]  # note\nk = [ 1,\n  { u = "s" } ]\n'
        "[[r]]\nq.w = 2\n[[r]]\nq = 3\n[r.sub]\nv = '''\n]'''\n"
    )
    parsed = document.parse(text.encode(), "f")
    assert not parsed.problems

    def at(place):
        return place.line, place.column, place.source[place.column - 1 : place.column - 1 + place.width]

    assert at(parsed.place(("a",), of_key=False)) == (1, 5, "1")
    assert at(parsed.place(("t", "x y"))) == (2, 4, '"x y"')
    assert at(parsed.place(("t", "x y", "z"))) == (2, 10, "z")
    assert at(parsed.place(("t", "x y", "z", "k", 0), of_key=False)) == (3, 7, "1")
    assert at(parsed.place(("t", "x y", "z", "k", 1, "u"), of_key=False)) == (4, 9, '"s"')
    assert at(parsed.place(("r", 0, "q", "w"), of_key=False)) == (6, 7, "2")
    assert at(parsed.place(("r", 1, "q"), of_key=False)) == (8, 5, "3")
    assert at(parsed.place(("r", 1, "sub"))) == (9, 4, "sub")
    assert at(parsed.place(("r", 1, "sub", "v"), of_key=False))[:2] == (10, 5)
    assert at(parsed.place(("r", 1, "none"))) == (7, 3, "r")  # the nearest table around it


def quoted(key: str) -> str:
    return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in key) + '"'


KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.booleans(),
        st.floats(allow_nan=False, allow_infinity=False),
        KEYS,
        st.dates(date(1000, 1, 1)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


def written(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return "[\n" + ", # a comment ]\n".join(map(written, value)) + "\n]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{quoted(key)} = {written(inner)}" for key, inner in value.items()) + " }"
    return repr(value) if isinstance(value, float) else str(value)


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path, value


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=3))
def test_the_text_at_every_position_is_the_value(data):
    text = "".join(
        f"[{quoted(name)}]\n" + "".join(f"{quoted(key)} = {written(value)}\n" for key, value in table.items())
        for name, table in data.items()
    )
    assert tomllib.loads(text) == data
    positions = toml_positions.scan(text)
    assert positions.unclosed is None
    assert positions.repeated is None
    for path, value in leaves(data):
        start, length = positions.values[path]
        found = tomllib.loads(f"v = {text[start : start + length]}")["v"]
        assert found == value or (isinstance(value, float) and math.isclose(found, value))
        assert not isinstance(found, datetime | time)
