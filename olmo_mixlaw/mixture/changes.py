"""What changed between the mixture of a checkpoint and that of the run which goes on from it.

Both are descriptions as `mixture.opened.description` makes them, plain values.
"""

from __future__ import annotations

import copy
from typing import Any

# Keys of a mixture's description that say where files are.
_PLACES = ("uris", "file", "fit")
_LONGEST = 80


def changes(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A phrase for each key in which two descriptions differ; none where they mean the same.

    Files count by what they hold where both descriptions say it, so that a run goes on when its
    files have been moved. Those of earlier versions don't say it: there, files count by name.
    """
    before, after = copy.deepcopy(was), copy.deepcopy(now)
    sources, others = before.get("sources", {}), after.get("sources", {})
    pairs = [(sources[label], others[label]) for label in sources.keys() & others.keys()]
    for one, other in [*pairs, (before.get("schedule", {}), after.get("schedule", {}))]:
        if "content" not in one or "content" not in other:
            alike = ["content"]
        else:
            alike = list(_PLACES) if one["content"] == other["content"] else []
        for key in alike:
            one.pop(key, None)
            other.pop(key, None)
    return differences(before, after)


def differences(was: Any, now: Any, key: str = "") -> list[str]:
    """A phrase for each key, at any depth, in which two nested settings differ."""
    if isinstance(was, dict) and isinstance(now, dict):
        found = []
        for name in sorted({*was, *now}):
            place = f"{key}.{name}" if key else name
            if name not in now:
                found.append(f"{place} is gone")
            elif name not in was:
                found.append(f"{place} is new")
            else:
                found += differences(was[name], now[name], place)
        return found
    return [] if was == now else [f"{key} was {_short(was)}, is {_short(now)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
