"""Small damages as people and disks make them, drawn from a seeded generator.

`values` changes one place of a nested mapping, `cells` one place of a table and `text` the letters
of a file; each gives a damaged copy and says what it did.
"""

from __future__ import annotations

import copy
import random
from typing import Any

ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    3,
    2**63,
    10**40,
    0.5,
    -0.1,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "a",
    "nan",
    "1e9",
    "12M",
    "1_0",
    "0x10",
    "../..",
    "/dev/null",
    "${name}",
    "???",
    "a\nb",
    "é",
    "\0",
    "x" * 5000,
    "mixlaw:",
    "<b>$_^",
    [],
    {},
    [[]],
    [1],
    ["a", "a"],
    [None],
    {"a": 1},
    {"": None},
    {1: 2},
    [{"a": [1]}],
)
CELLS = ("", "nan", "inf", "-1", "0", "1e400", "abc", "1,5", '"', "é", " 1 ", "1e-9", "x" * 300)
LETTERS = ("\0", "\ufeff", "é", '"', "'", ":", "\t", "{", "]", "&a", "*a", "\r", "%", ",", "=", "#")


def values(rng: random.Random, seed: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A copy with one place replaced, removed, renamed, doubled or wrapped."""
    made = copy.deepcopy(seed)
    places = list(_places(made))
    holder, key = rng.choice(places)
    what = rng.choice(("replace", "replace", "replace", "remove", "rename", "wrap", "negate"))
    old = holder[key]
    if what == "replace":
        holder[key] = rng.choice(ODD)
    elif what == "remove":
        del holder[key]
    elif what == "rename" and isinstance(holder, dict):
        holder[rng.choice((f"{key}x", str(key)[:-1], str(key).upper(), f"{key}.a", 7))] = old
        del holder[key]
    elif what == "negate" and isinstance(old, int | float) and not isinstance(old, bool):
        holder[key] = rng.choice((-old, old * 1000, old + 0.5, old * 1e12))
    else:
        holder[key] = rng.choice(([old], {"a": old}, [old, old], str(old)))
    return made, f"{what} {key!r}: {str(old)[:40]!r} -> {str(holder_get(holder, key))[:40]!r}"


def holder_get(holder: Any, key: Any) -> Any:
    try:
        return holder[key]
    except (KeyError, IndexError):
        return "(gone)"


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def cells(rng: random.Random, text: str) -> tuple[str, str]:
    """A CSV with a cell, a row or a column changed."""
    rows = [line.split(",") for line in text.strip().split("\n")]
    i, j = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    what = rng.choice(("cell", "cell", "cell", "drop", "double", "column", "swap", "short", "head"))
    said = f"{what} {i},{j}"
    if what == "cell":
        rows[i][j] = rng.choice(CELLS)
        said += f" -> {rows[i][j][:20]!r}"
    elif what == "drop":
        del rows[i]
    elif what == "double":
        rows.insert(i, list(rows[i]))
    elif what == "column":
        for row in rows:
            del row[j]
    elif what == "swap":
        k = rng.randrange(len(rows[0]))
        for row in rows:
            row[j], row[k] = row[k], row[j]
        said += f" and {k}"
    elif what == "short":
        rows[i] = rows[i][:j]
    else:
        rows[0][j] = rng.choice((rows[0][j - 1], "", "loss", "w_x", "split", f"{rows[0][j]} "))
        said += f" -> {rows[0][j]!r}"
    return "\n".join(",".join(row) for row in rows) + "\n", said


def text(rng: random.Random, seed: str) -> tuple[bytes, str]:
    """Bytes of a file with letters put in, taken out, or its end gone."""
    data = seed.encode()
    at = rng.randrange(len(data) + 1)
    what = rng.choice(("insert", "insert", "delete", "truncate", "byte", "line", "double"))
    if what == "insert":
        letter = rng.choice(LETTERS)
        return data[:at] + letter.encode() + data[at:], f"insert {letter!r} at {at}"
    if what == "delete":
        count = rng.choice((1, 2, 20))
        return data[:at] + data[at + count :], f"delete {count} at {at}"
    if what == "truncate":
        return data[:at], f"truncate at {at}"
    if what == "byte":
        byte = bytes([rng.randrange(256)])
        return data[:at] + byte + data[at + 1 :], f"byte {byte!r} at {at}"
    lines = data.split(b"\n")
    i = rng.randrange(len(lines))
    if what == "line":
        gone = lines.pop(i)
        return b"\n".join(lines), f"line {i} gone: {gone[:40]!r}"
    lines.insert(i, lines[i])
    return b"\n".join(lines), f"line {i} twice: {lines[i][:40]!r}"


def uri(rng: random.Random, seed: str) -> tuple[str, str]:
    """A dataset's URI with a parameter changed, added, doubled or a letter put in."""
    start, _, query = seed.partition("?")
    pairs = [pair.partition("=")[::2] for pair in query.split("&")]
    what = rng.choice(("value", "value", "value", "key", "drop", "double", "add", "letter"))
    i = rng.randrange(len(pairs))
    key, value = pairs[i]
    if what == "value":
        odd = rng.choice((*CELLS, "-5", "1.5", "true", "None", "%00", "%ZZ", "a:b", "..", "1e3"))
        pairs[i] = key, odd
    elif what == "key":
        pairs[i] = rng.choice((f"{key}s", key[:-1], key.upper(), "", "self", "args")), value
    elif what == "drop":
        del pairs[i]
    elif what == "double":
        pairs.append(pairs[i])
    elif what == "add":
        pairs.append((rng.choice(("compact", "seed", "bits", "cap", "order", "x")), "3"))
    made = start + "?" + "&".join(f"{k}={v}" for k, v in pairs) if pairs else start
    if what == "letter":
        at = rng.randrange(len(made) + 1)
        made = made[:at] + rng.choice(LETTERS) + made[at:]
    return made, f"{what}: {made[:120]!r}"
