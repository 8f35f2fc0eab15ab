import shlex
from dataclasses import dataclass, field

import pytest
from omegaconf import MISSING

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError, UnknownNameError, closest, unknown_name


@dataclass
class Inner:
    depth: int = MISSING


@dataclass
class Outer:
    name: str = MISSING
    inner: Inner = field(default_factory=Inner)
    ratios: dict[str, float] = field(default_factory=dict)
    layers: list[Inner] = field(default_factory=list)


def read(tmp_path, text, overrides=()):
    path = tmp_path / "some.yaml"
    path.write_text(text)
    return schema.load(path, Outer, overrides)


def test_reads_nested_values_and_overrides(tmp_path):
    text = "name: a\ninner: {depth: 2}\nratios: {x: 1}\nlayers: [{depth: 5}]"
    config = read(tmp_path, text, ("inner.depth=3", "--name=b"))
    assert config == Outer("b", Inner(3), {"x": 1.0}, [Inner(5)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam: a", r"some.yaml: unknown key 'nam'; did you mean 'name'\?"),
        ("name: a\ninner: {dept: 1}", r"unknown key 'inner.dept'; did you mean 'inner.depth'\?"),
        ("name: a\nlayers: [{depht: 1}]", "unknown key 'layers.0.depht'"),
    ],
)
def test_unknown_key_names_the_closest(tmp_path, text, message):
    with pytest.raises(UnknownNameError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a", "some.yaml: inner.depth: this key is required"),
        ("name: a\ninner: {depth: deep}", "some.yaml: inner.depth: Value 'deep'"),
        ("name: a\ninner: 3", "some.yaml: "),
        ("name: [", "some.yaml:1: not valid YAML"),
        ("- a", "expected a mapping of keys, found a list"),
        ("", "the file is empty"),
    ],
)
def test_bad_file_is_refused_with_file_and_key(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.yaml: no such file"):
        schema.load(tmp_path / "nowhere.yaml", Outer)


@dataclass
class Many:
    counts: list[int] = field(default_factory=lambda: [1])
    names: list[str] = field(default_factory=list)
    size: float = 1.0
    one: str = ""
    pair: tuple[float, float] = (0.0, 1.0)
    flag: bool = False
    shares: dict[str, float] = field(default_factory=dict)
    inner: Inner | None = None
    layers: list[Inner] = field(default_factory=list)


def many(tmp_path, text, *overrides):
    path = tmp_path / "many.yaml"
    path.write_text(text)
    return schema.load(path, Many, overrides)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("counts: 200_000", "counts", [200_000]),
        ("counts: 3", "counts", [3]),
        ("counts: [2e9, 12M, 1.5B, 3.0]", "counts", [2_000_000_000, 12_000_000, 1_500_000_000, 3]),
        ("names: w16", "names", ["w16"]),
        ("names: [1, a]", "names", ["1", "a"]),
        ("size: 12M", "size", 12e6),
        ("size: 1e-3", "size", 1e-3),
        ("one: [alone]", "one", "alone"),
        ("layers: {depth: 4}", "layers", [Inner(4)]),
        ("shares: {2024: 1}", "shares", {"2024": 1.0}),
        ("flag: 'true'", "flag", True),
    ],
)
def test_what_is_plainly_meant_is_accepted(tmp_path, text, key, value):
    assert getattr(many(tmp_path, text), key) == value
    name, _, given = text.partition(": ")
    assert getattr(many(tmp_path, "one: x", f"{name}={given}"), key) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("counts: {a: 1}", "counts: Value {'a': 1}: expected a list, each item a whole number"),
        ("counts: [1.5]", "counts[0]: Value 1.5: expected a whole number"),
        ("counts: [yes]", "counts[0]: Value True: expected a whole number"),
        ("counts:", "counts: is empty; expected a list, each item a whole number"),
        ("size: .nan", "size: Value nan: expected a number"),
        ("size: 1e308", "size: Value '1e308': expected a number"),
        ("counts: 1e19", "counts[0]: Value '1e19': expected a whole number"),
        ("counts: .inf", "counts[0]: Value inf: expected a whole number"),
        ("size: [1, 2]", "size: Value [1, 2]: expected a number"),
        ("one: {a: 1}", "one: Value {'a': 1}: expected a text"),
        ("one: no", "one: False: a name like yes, no or on needs quotes"),
        ("pair: 3", "pair: Value 3: expected a list of 2, each a number"),
        ("flag: 3", "flag: Value 3: expected true or false"),
        ("shares: [0.5, 0.5]", "shares: Value [0.5, 0.5]: expected a mapping, each value a number"),
        ("shares: {a: [1, 2]}", "shares.a: Value [1, 2]: expected a number"),
        ("shares: {no: 1}", "shares: the key False is no text; put it in quotes"),
        ("inner: 3", "inner: Value 3: expected a mapping with the keys depth"),
        ("layers: 3", "layers[0]: Value 3: expected a mapping with the keys depth"),
        ("one: a\none: b", "not valid YAML (key 'one' stands there twice)"),
        ("one: 2024-13-45", "not valid YAML (month must be in 1..12"),
        ("one: 2024-12-24", "one: Value datetime.date(2024, 12, 24): expected a text"),
        ("one: ${one}", "many.yaml: "),
        ("one: ${nowhere}", "many.yaml: one: "),
        ("one: &a [*a]", "an alias in itself"),
        ("one: " + "[" * 300 + "]" * 300, "nested"),
        ("one: " + "[" * 60_000, "nested too deeply"),
        ("size: " + "9" * 6000, "many.yaml: "),
    ],
)
def test_a_wrong_kind_of_value_is_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        many(tmp_path, text)
    said = str(caught.value)
    assert message in said
    assert "many.yaml" in said
    assert "\n" not in said
    assert len(said) < 400


def test_aliases_that_explode_are_refused_before_they_do(tmp_path):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match="aliases stand for more than 1,000,000 values"):
        many(tmp_path, "\n".join(lines))


def test_a_file_too_large_to_be_one_of_ours_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "MOST_BYTES", 10)
    with pytest.raises(ConfigError, match="which no such file needs"):
        many(tmp_path, "one: abcdefghijkl")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cuonts=3", "override 'cuonts=3': unknown key 'cuonts'; did you mean 'counts'?"),
        ("counts=few", "override 'counts=few': counts[0]: Value 'few': expected a whole number"),
        ("counts", "override 'counts': overrides are written KEY=VALUE"),
        ("=3", "override '=3': overrides are written KEY=VALUE"),
        ("one=[", "override 'one=[': one: its brackets don't match; write 'one=[]'"),
        ("layers.4.depth=3", "override 'layers.4.depth=3': there is no item 4: the list has 1"),
        ("inner.depth.x=1", "inner.depth: Value {'x': 1}: expected a whole number"),
    ],
)
def test_a_wrong_override_is_not_blamed_on_the_file(tmp_path, override, message):
    with pytest.raises(ConfigError) as caught:
        many(tmp_path, "layers: [{depth: 1}]", override)
    assert str(caught.value).startswith(message) or message in str(caught.value)
    assert "many.yaml" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("names=[w16,w32", "names=[w16,w32]"),
        ("names=[w16,", "names=[w16, ...]"),
        ("counts=[0,1", "counts=[0,1]"),
        ("counts=]0", "counts=0"),
        ("shares={a: 1", "shares={a: 1}"),
        ("layers=[{depth: 1]", "layers=[{depth: 1}]"),
        ("counts=0,1", "counts=[0,1]"),
        ("counts=4M, 8M", "counts=[4M,8M]"),
        ("counts=(0,1)", "counts=[0,1]"),
        ("counts=0 1", "counts=[0,1]"),
        ("pair=0,1", "pair=[0,1]"),
        ("names=w16,w32", "names=[w16,w32]"),
        ("counts=[1,,2]", "counts=[A,B]"),
        ("one=@x", 'one="@x"'),
        ("one='x", 'one="x"'),
        ("inner.depth=[1", "inner.depth=[1]"),
    ],
)
def test_an_override_that_cannot_be_read_shows_the_right_spelling(tmp_path, override, right):
    with pytest.raises(ConfigError) as caught:
        many(tmp_path, "one: a", override)
    said = str(caught.value)
    key = override.partition("=")[0]
    assert said.startswith(f"override {override!r}: {key}: ")
    assert said.endswith((f"write {shlex.quote(right)}", f"write several as {right}"))
    assert "YAML" not in said
    if "..." not in right and "A,B" not in right:
        assert many(tmp_path, "one: a", right)


def test_a_comma_in_a_file_may_be_meant(tmp_path):
    assert many(tmp_path, "names: a,b.npy").names == ["a,b.npy"]
    given = "names=mixlaw:biography?pools=a:1,b:2"
    assert many(tmp_path, "one: a", given).names == [given[6:]]
    with pytest.raises(ConfigError, match=r"many.yaml: counts: '0, 1' is one value; .* \[0,1\]"):
        many(tmp_path, "counts: 0, 1")


def test_an_override_reaches_into_a_list(tmp_path):
    found = many(tmp_path, "layers: [{depth: 1}, {depth: 2}]", "layers.1.depth=7", "one=mixlaw:a?b")
    assert found.layers == [Inner(1), Inner(7)]
    assert found.one == "mixlaw:a?b"


def test_a_name_that_is_no_text_is_unknown_too():
    assert "unknown key '7' (known: a)" in str(unknown_name("key", 7, ["a"]))


def test_the_last_part_of_a_key_decides_what_was_meant():
    known = ["optimizer.eps", "optimizer.learning_rate", "optimizer.betas"]
    assert closest("optimizer.lr", known) == "optimizer.learning_rate"
    assert closest("optimizer.beta", known) == "optimizer.betas"
    assert closest("optimizer.zzz", known) is None


@pytest.mark.parametrize(
    ("text", "value"), [("12M", 12e6), ("1B", 1e9), ("2e9", 2e9), ("1.1m", 1.1e6), ("200_000", 2e5)]
)
def test_counts_are_read_as_people_write_them(text, value):
    assert schema.parse_count(text, "--size") == value


@pytest.mark.parametrize("text", ["", "M", "twelve", "1G", "-3", "0", "nan", "inf", "1e999"])
def test_what_is_no_count_is_one_line(text):
    with pytest.raises(ConfigError, match="--size: "):
        schema.parse_count(text, "--size")
