"""Source trees for tests: flat ones of any size, one with a pinned part, and any with limits."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from olmo_mixlaw.swarm.limits import Limits, limits_of
from olmo_mixlaw.swarm.sources import Source, SourceTree


def flat(tokens: list[float], **options: object) -> SourceTree:
    """Sources `s0`, `s1`, ... with these tokens."""
    return SourceTree(tuple(Source(f"s{i}", t) for i, t in enumerate(tokens)), "list.yaml")


def nested() -> SourceTree:
    """web (science, pinned games of two qualities), code, wiki: 4 units, 5 leaves."""
    games = Source("games", parts=(Source("high", 10e9), Source("low", 30e9)), pinned=True)
    web = Source("web", parts=(Source("science", 60e9), games), most=0.8)
    return SourceTree((web, Source("code", 80e9), Source("wiki", 20e9)), "list.yaml")


@st.composite
def trees_and_limits(draw: st.DrawFn) -> tuple[SourceTree, Limits]:
    """A tree of up to 12 sources, some in groups, with limits that some mixture meets."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, size=draw(st.integers(2, 4)))
    inside = rng.dirichlet(np.ones(sizes.sum()) * rng.choice([0.3, 1, 5]))
    least = np.where(rng.random(len(inside)) < 0.3, inside * rng.random(len(inside)), 0.0)
    most = np.where(rng.random(len(inside)) < 0.5, inside + (1 - inside) * rng.random(), 1.0)
    sources, at = [], 0
    for number, size in enumerate(sizes.tolist()):
        parts = tuple(
            Source(f"p{i}", float(rng.lognormal(23, 1.5)), least=least[i], most=most[i])
            for i in range(at, at + size)
        )
        share = inside[at : at + size].sum()
        bounds = (
            {"least": share * rng.random(), "most": share + (1 - share) * rng.random()}
            if rng.random() < 0.5
            else {}
        )
        sources.append(Source(f"g{number}", parts=parts, **bounds))
        at += size
    tree = SourceTree(tuple(sources), "list.yaml")
    least_ratio = draw(st.sampled_from([0.0, 0.002, 0.01]))
    if (most < least_ratio).any() or (inside < least_ratio).any():
        least_ratio = 0.0  # else the mixture `inside` would show no longer that there is one
    return tree, limits_of(tree, least_ratio=least_ratio)
