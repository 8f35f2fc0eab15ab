"""Source lists: files of ours, folders, pairs; and the tokens that are counted for them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from olmo_mixlaw.datasets import open_dataset, write_memmap
from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.swarm.config import read_sources
from olmo_mixlaw.swarm.counting import dataset_tokens
from olmo_mixlaw.swarm.sources import SourceTree

LIST = """
sources:
  code: 12.5B
  web:
    most: 0.8
    parts:
      science: {tokens: 84.5B, most_epochs: 4}
      games:
        pinned: true
        inner: {good: 0.7, bad: 0.3}
        parts: {good: 1B, bad: 9B}
  math: {uri: "mixlaw:text?path=math.txt", tokens: 2B, least: 0.02}
"""


def listed(folder: Path, text: str) -> Path:
    path = folder / "list.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def tokens_in(path: Path, count: int, dtype: str = "uint16") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (1 + np.arange(count) % 500).astype(dtype).tofile(path)


def read(*given: object, **options: object) -> SourceTree:
    return read_sources([str(item) for item in given], **options)  # type: ignore[arg-type]


def test_a_list_of_ours_says_all_that_a_source_has(tmp_path: Path) -> None:
    tree = read(listed(tmp_path, LIST))
    assert tree.leaf_names == ("code", "web:science", "web:games:good", "web:games:bad", "math")
    assert tree.names == ("code", "web:science", "web:games", "math")
    np.testing.assert_allclose(tree.tokens(), [12.5e9, 84.5e9, 1e9, 9e9, 2e9])
    np.testing.assert_allclose(tree.prior, np.array([12.5, 84.5, 10, 2]) / 109)
    np.testing.assert_allclose(tree.expansion[2], [0, 0, 0.7, 0.3, 0])
    web, math_source = tree.sources[1], tree.sources[2]
    assert (web.most, web.parts[0].most_epochs, math_source.least) == (0.8, 4, 0.02)


def test_paths_in_a_list_are_beside_it(tmp_path: Path) -> None:
    tokens_in(tmp_path / "tokens" / "a.npy", 300)
    (tmp_path / "math.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    path = listed(tmp_path, LIST + "  own: {paths: [tokens/a.npy]}\n")
    tree = read(path)
    assert tree.sources[3].paths == (str(tmp_path / "tokens" / "a.npy"),)
    assert tree.sources[3].tokens == 300
    assert tree.sources[2].uri == f"mixlaw:text?path={tmp_path}/math.txt"


def test_a_folder_has_a_source_a_folder_of_token_files(tmp_path: Path) -> None:
    tokens_in(tmp_path / "web" / "1.npy", 300)
    tokens_in(tmp_path / "web" / "2.npy", 200)
    tokens_in(tmp_path / "code" / "1.npy", 1500)
    tree = read(tmp_path)
    assert tree.names == ("code", "web")
    np.testing.assert_allclose(tree.prior, [0.75, 0.25])
    (tmp_path / "flat").mkdir()
    tokens_in(tmp_path / "flat" / "x.npy", 100)
    assert read(tmp_path / "flat").names == ("x",)


def test_pairs_are_tokens_paths_and_datasets(tmp_path: Path, byte_tokenizer, small_uri) -> None:
    tokens_in(tmp_path / "a.npy", 128, "uint32")
    tree = read("web=3.7T", f"a={tmp_path}/a.npy", f"bio={small_uri}", dtype="uint32")
    web, a, bio = tree.tokens()
    assert (web, a, bio) == (3.7e12, 128, math.inf)


def test_tokens_of_a_file_of_ours_need_no_dtype(tmp_path: Path, byte_tokenizer, small_uri) -> None:
    texts = open_dataset(small_uri).documents(0, 50)
    path = tmp_path / "bio.npy"
    total = write_memmap(texts, byte_tokenizer, path, eos_token_id=0, dtype="uint32")
    assert read(f"bio={path}", "x=1k").tokens()[0] == total


def test_tokens_of_a_dataset_are_those_of_its_encoding(
    tmp_path: Path, byte_tokenizer, small_uri
) -> None:
    texts = list(open_dataset(small_uri).documents(0, 400))
    (tmp_path / "t.txt").write_text("\n\n".join(texts), encoding="utf-8")
    uri = f"mixlaw:text?path={tmp_path}/t.txt&heldout=0"
    kept = list(open_dataset(uri).documents())
    exact = sum(len(byte_tokenizer.encode(text).ids) + 1 for text in kept)
    assert dataset_tokens(uri, byte_tokenizer) == exact
    assert math.isnan(dataset_tokens(uri, None))


def test_a_prior_given_by_hand_needs_no_tokens(tmp_path: Path) -> None:
    path = listed(
        tmp_path, "prior: {a: 3, b: 1}\nsources:\n  a: {paths: ['s3://x/*.npy']}\n  b: 1k"
    )
    np.testing.assert_allclose(read(path).prior, [0.75, 0.25])
    np.testing.assert_allclose(read(path, prior={"a": 1, "b": 1}).prior, [0.5, 0.5])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sources: {a: {tokn: 3}}", "unknown key 'sources.a.tokn'; did you mean"),
        ("sources: {a: many}", "sources.a.tokens: Value 'many': expected a number"),
        ("sources: {a: {uri: 'mixlaw:slope', paths: [x.npy]}}", "sources.a: paths and uri are giv"),
        ("sources: {a: {pinned: true, inner: {c: 1}, parts: {b: 1k}}}", "unknown part 'c'"),
        ("sources: {a: {paths: [nowhere.npy]}}", "nowhere.npy: no such file"),
        ("sources: {a: {uri: 'mixlaw:slop'}}", "unknown dataset 'slop'; did you mean 'slope'"),
        ("prior: {a: 1}\nsources: {a: 1k, b: 1k}", "prior: leaves out b"),
        ("sources: {}", "sources: at least one is needed"),
        ("source: {a: 1k}", "unknown key 'source'; did you mean 'sources'"),
    ],
)
def test_a_list_with_a_mistake_is_refused_naming_file_and_key(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = listed(tmp_path, text)
    with pytest.raises(MixlawError, match=problem) as error:
        read(path)
    assert str(path.parent) in str(error.value)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ((), "no sources: give a source list, a folder or NAME=WHAT"),
        (("a=1k", "b"), "'b': several sources are written NAME=TOKENS"),
        (("a=1k", "b=lots"), "b: tokens: 'lots' is not a count"),
        (("micro25",), "unknown source list 'micro25'; did you mean 'micro24'"),
    ],
)
def test_sources_that_can_t_be_meant_are_refused(given: tuple, problem: str) -> None:
    with pytest.raises(MixlawError, match=problem):
        read(*given)
