"""A swarm: mixtures of sources with what they were made from, and what they are like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.swarm.draws import Draw, draw
from olmo_mixlaw.swarm.limits import Limits
from olmo_mixlaw.swarm.mixtures import Mixtures, new_names
from olmo_mixlaw.swarm.sources import Source, SourceTree

# A limit that a planned mixture breaks by less was met before it was written with few digits.
WRITTEN = 1e-4


@dataclass(frozen=True)
class Swarm:
    """Mixtures `ratios` (n, F) of the free units of a `tree`, called `ids` (n).

    `target_tokens` is the run that they are for, `run_tokens` one of their own; with
    `match_repeats` its sources are cut so that it repeats them as the target will. `made` says how
    the mixtures came about, as plain values.
    """

    tree: SourceTree
    limits: Limits
    ids: tuple[str, ...]
    ratios: np.ndarray
    name: str = "swarm"
    target_tokens: float | None = None
    run_tokens: float | None = None
    match_repeats: bool = False
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leaf_ratios(self) -> np.ndarray:
        """The ratios (n, L) of the leaves, which are what a run trains on."""
        return self.tree.expand(self.ratios)

    @property
    def share(self) -> float | None:
        """The part that sources are cut to, where repeats are matched: run over target tokens.

        Raises `ConfigError` where either isn't known.
        """
        if not self.match_repeats:
            return None
        if self.run_tokens is None or self.target_tokens is None:
            raise ConfigError("match-repeats: give target-tokens, and run-tokens of a run")
        return min(1.0, self.run_tokens / self.target_tokens)


def drawn(
    tree: SourceTree, limits: Limits, n: int, how: Draw, begun: Mixtures | None = None
) -> Swarm:
    """A swarm of `n` mixtures, the first of which are `begun`. Raises `ConfigError`."""
    ratios = draw(n, tree.prior, limits, how, None if begun is None else begun.ratios)
    ids = new_names(n, () if begun is None else begun.ids)
    made = {**asdict(how), "begun": 0 if begun is None else len(begun.ids)}
    return Swarm(tree, limits, ids, ratios, made=made)


def planned(tree: SourceTree, limits: Limits, mixtures: Mixtures) -> Swarm:
    """A swarm of mixtures that were chosen elsewhere. Raises `ConfigError` for one off limits."""
    broken = limits.broken(mixtures.ratios, WRITTEN)
    if broken.any():
        first = int(broken.argmax())
        problem = limits.problem(mixtures.ratios[first], tree)
        raise ConfigError(
            f"mixture {mixtures.ids[first]}: breaks a limit: {problem} ({int(broken.sum())} of "
            f"{len(broken)} mixtures break one)"
        )
    return Swarm(tree, limits, mixtures.ids, mixtures.ratios, made={"method": "planner"})


def summary(swarm: Swarm) -> list[dict[str, Any]]:
    """A row a leaf: tokens, prior, least, mean and greatest ratio, how many mixtures have it.

    `epochs` and `most_epochs` are the mean and the greatest repeats at the target; None where the
    tokens of either aren't known.
    """
    ratios = swarm.leaf_ratios
    prior = swarm.tree.expand(swarm.tree.prior)
    rows = []
    for k, leaf in enumerate(swarm.tree.leaves):
        values = ratios[:, k]
        countable = swarm.target_tokens is not None and np.isfinite(leaf.tokens)
        epochs = values * (swarm.target_tokens or 0) / leaf.tokens if countable else None
        rows.append(
            {
                "source": leaf.name,
                "tokens": leaf.tokens,
                "prior": float(prior[k]),
                "least": float(values.min()),
                "mean": float(values.mean()),
                "greatest": float(values.max()),
                "present": float((values > 0).mean()),
                "epochs": None if epochs is None else float(epochs.mean()),
                "most_epochs": None if epochs is None else float(epochs.max()),
            }
        )
    return rows


def provenance(swarm: Swarm) -> dict[str, Any]:
    """What the swarm was made from, as plain values: the same swarm gives the same."""
    limits, names = swarm.limits, swarm.tree.names
    return {
        "name": swarm.name,
        "mixtures": len(swarm.ids),
        "made": dict(swarm.made),
        "target_tokens": swarm.target_tokens,
        "run_tokens": swarm.run_tokens,
        "match_repeats": swarm.match_repeats,
        "least_ratio": limits.least_ratio,
        "limits": {
            name: [float(low), float(high)]
            for name, low, high in zip(names, limits.low, limits.high, strict=True)
        },
        "groups": [
            {"sources": [names[u] for u in group.units], "limits": [group.low, group.high]}
            for group in limits.whole.all()
            if group is not limits.whole
        ],
        "prior": dict(zip(names, swarm.tree.prior.tolist(), strict=True)),
        "file": swarm.tree.file,
        "sources": [_plain(source) for source in swarm.tree.sources],
    }


def _plain(source: Source) -> dict[str, Any]:
    """A source as plain values, without the keys that say nothing."""
    found: dict[str, Any] = {"name": source.name, "tokens": source.total}
    plain = Source(source.name)
    for key in ("uri", "most_epochs", "least", "most", "pinned"):
        if (value := getattr(source, key)) != getattr(plain, key):
            found[key] = value
    if source.paths:
        found["paths"] = list(source.paths)
    if source.inner is not None:
        found["inner"] = list(source.inner)
    if source.parts:
        found["parts"] = [_plain(part) for part in source.parts]
    return found
