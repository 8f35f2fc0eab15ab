"""Small files that unpack to endless ones are refused before memory ends, by file and line."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from olmo_mixlaw.datasets import memmap, readers
from olmo_mixlaw.datasets.memmap import metadata_path, read_metadata
from olmo_mixlaw.datasets.readers import read_rows, read_texts
from olmo_mixlaw.datasets.token_file import BLOCK_BYTES, Summing, Sums, read_sums, write_sums
from olmo_mixlaw.errors import DataError
from olmo_mixlaw.evaluation.provenance import read_source


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> int:
    """Lines and documents of 100 characters at most."""
    before = csv.field_size_limit()
    monkeypatch.setattr(readers, "MOST_CHARACTERS", 100)
    yield 100
    csv.field_size_limit(before)


def packed(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()))
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl.gz", '{"text": "ok"}\n{"text": "' + "x" * 200 + '"}\n'),
        ("a.csv.gz", "text\n" + "x" * 200 + "\n"),
        ("a.txt.gz", "ok\n" + "x" * 200),
    ],
)
def test_a_line_without_an_end_is_refused(tmp_path: Path, short: int, name: str, text: str) -> None:
    path = packed(tmp_path / name, text)
    with pytest.raises(
        DataError, match=rf"{name}:2: a line of more than .* part it into documents"
    ):
        list(read_texts(path, "text", "line"))


@pytest.mark.parametrize("unit", ["file", "paragraph"])
def test_a_document_without_an_end_is_refused(tmp_path: Path, short: int, unit: str) -> None:
    path = packed(tmp_path / "a.txt.gz", "twelve chars\n" * 20)
    with pytest.raises(DataError, match=rf"a\.txt\.gz:8: a {unit} of more than"):
        list(read_texts(path, "text", unit))


def test_a_field_over_many_lines_is_refused(tmp_path: Path, short: int) -> None:
    path = packed(tmp_path / "a.csv.gz", 'text\n"' + "twelve chars\n" * 20 + '"\n')
    with pytest.raises(DataError, match=r"a\.csv\.gz:\d+: can't be read as CSV \(field larger"):
        list(read_rows(path))


def test_documents_longer_than_pythons_own_fields_are_read(tmp_path: Path) -> None:
    text = "long " * 40_000  # beyond 128 KiB, where the csv module stops by itself
    path = packed(tmp_path / "a.csv.gz", f"text\n{text}\n")
    assert list(read_texts(path, "text", "line")) == [text]


@pytest.mark.parametrize("unit", ["file", "line", "paragraph"])
def test_units_are_what_they_were(tmp_path: Path, unit: str) -> None:
    text = "one\ntwo\r\n\n\nthree\n"
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    expected = {
        "file": [text],
        "line": ["one\n", "two\r\n", "\n", "\n", "three\n"],
        "paragraph": ["one\ntwo\r\n", "three\n"],
    }
    assert list(read_texts(path, "text", unit)) == expected[unit]
    path.write_bytes(b"")
    assert list(read_texts(path, "text", unit)) == ([""] if unit == "file" else [])


def token_file(folder: Path, rows: str) -> Path:
    path = folder / "a.npy"
    np.arange(100, dtype=np.uint16).tofile(path)
    packed(metadata_path(path), rows)
    return path


def test_metadata_is_read_as_it_stands(tmp_path: Path) -> None:
    path = token_file(tmp_path, "0,40,0,mixlaw:slope,0\n40,100,1,mixlaw:slope,1\n")
    assert read_metadata(path).tolist() == [[0, 40], [40, 100]]
    assert read_source(path) == "mixlaw:slope"


def test_metadata_of_more_documents_than_bytes_is_refused(tmp_path: Path) -> None:
    path = token_file(tmp_path, "0,1,0,x,0\n" * 5000)
    with pytest.raises(DataError, match=r"a\.csv\.gz: line 201: more documents than a\.npy has"):
        read_metadata(path)


@pytest.mark.parametrize("rows", ["0\n", "a,b\n", "-1,2\n"])
def test_metadata_of_another_shape_is_named(tmp_path: Path, rows: str) -> None:
    with pytest.raises(DataError, match=r"a\.csv\.gz: line 1: expected start, end"):
        read_metadata(token_file(tmp_path, rows))


def test_a_bomb_in_the_place_of_metadata_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memmap, "MOST_LINE", 1000)
    path = token_file(tmp_path, "x" * 5_000_000)
    with pytest.raises(DataError, match=r"a\.csv\.gz: a line of more than"):
        read_metadata(path)
    assert read_source(path) == str(path)
    metadata_path(path).write_bytes(gzip.compress(b"0,1,0,x,0\n")[:-9])
    with pytest.raises(DataError, match=r"a\.csv\.gz: can't be read"):
        read_metadata(path)


def summed(folder: Path) -> Path:
    path = folder / "a.npy"
    data = np.arange(BLOCK_BYTES, dtype=np.uint16).tobytes()
    path.write_bytes(data)
    summing = Summing()
    summing.add(data)
    write_sums(path, Sums("uint16", "t", 0, BLOCK_BYTES, summing.finish()))
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"crc32": [1] * 10**5},
        {"crc32": [1]},
        {"crc32": ["a", "b"]},
        {"crc32": None},
        {"tokens": -4},
        {"tokens": 1.5},
        {"dtype": ["uint16"]},
        {"dtype": "float32"},
        {"eos_token_id": "0"},
        {"tokenizer": {"a": 1}},
    ],
)
def test_sums_that_are_not_of_this_file_are_refused(tmp_path: Path, change: dict) -> None:
    path = summed(tmp_path)
    assert read_sums(path) is not None
    file = path.with_suffix(".sums.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DataError, match=r"a\.sums\.json: is damaged; make a\.npy again"):
        read_sums(path)
