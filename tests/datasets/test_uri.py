"""URIs of datasets: what is written is what is read, whatever characters a value has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uris import write

from olmo_mixlaw.datasets.uri import SCHEME, dataset_name, is_uri, parse, take
from olmo_mixlaw.errors import DataError

NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
# Every character that a query gives a meaning to, often; any other one too.
TEXTS = st.text(st.one_of(st.sampled_from(" +%&=?#;:,/%20"), st.characters(codec="utf-8")))
PARAMETERS = st.dictionaries(TEXTS, TEXTS, max_size=5)


# As people write them: with a plus or a space left as it is, and with escapes that needn't be.
QUERIES = st.lists(
    st.tuples(NAMES, st.text(st.sampled_from("ab+ é/:,%"), max_size=8).map(lambda t: t + "%2b")),
    unique_by=lambda pair: pair[0],
    max_size=4,
)


@given(NAMES, PARAMETERS)
def test_what_is_written_is_read_back(name: str, parameters: dict[str, str]) -> None:
    uri = write(name, parameters)
    assert is_uri(uri)
    assert dataset_name(uri) == name
    assert parse(uri) == (name, parameters)


@given(NAMES, PARAMETERS, TEXTS, st.integers(0, 5))
def test_a_parameter_taken_out_leaves_the_others_alone(
    name: str, parameters: dict[str, str], ratio: str, place: int
) -> None:
    others = {key: value for key, value in parameters.items() if key != "ratio"}
    pairs = list(others.items())
    pairs.insert(place, ("ratio", ratio))
    rest, value = take(write(name, dict(pairs)), "ratio")
    assert value == ratio
    assert parse(rest) == (name, others)
    assert take(rest, "ratio") == (rest, None)


@given(NAMES, QUERIES, st.integers(0, 4))
def test_what_stands_beside_it_keeps_every_letter(
    name: str, pairs: list[tuple[str, str]], place: int
) -> None:
    others = [f"{key}={value}" for key, value in pairs if key != "ratio"]
    uri = f"{SCHEME}{name}" + ("?" + "&".join(others) if others else "")
    with_ratio = [*others[:place], "ratio=.5", *others[place:]]
    assert take(f"{SCHEME}{name}?{'&'.join(with_ratio)}", "ratio") == (uri, ".5")


def test_a_space_and_a_plus_keep_their_meaning() -> None:
    rest, ratio = take("mixlaw:text?path=/x/my%20file+c++.txt&ratio=.5", "ratio")
    assert (rest, ratio) == ("mixlaw:text?path=/x/my%20file+c++.txt", ".5")
    assert parse(rest) == ("text", {"path": "/x/my file+c++.txt"})


def test_a_path_is_no_uri() -> None:
    assert not is_uri("/data/web.npy")
    assert dataset_name("/data/mixlaw:biography?n=4") == ""


@pytest.mark.parametrize("uri", ["mixlaw:text?path", "mixlaw:text?a=1&&b=2", "web.npy"])
def test_a_malformed_uri_is_refused_with_its_place(uri: str) -> None:
    for read in (lambda: parse(uri, "f.yaml: data"), lambda: take(uri, "a", "f.yaml: data")):
        with pytest.raises(DataError) as error:
            read()
        assert str(error.value).startswith(f"f.yaml: data: {uri!r}")
