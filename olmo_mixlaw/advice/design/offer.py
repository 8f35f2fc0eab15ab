"""What could be run: the sizes of a ladder or a table, each at drawn mixtures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.advice.design.candidates import Candidates
from olmo_mixlaw.advice.design.prices import Prices
from olmo_mixlaw.advice.repetition import cuts
from olmo_mixlaw.advice.simplex import is_free, project
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models.ladder import Ladder, short
from olmo_mixlaw.runs import Design

# Strengths of the Dirichlet that mixtures are drawn from: from nearly single sources to nearly the
# prior itself (a log-uniform range; as RegMix's swarms, arXiv 2407.01492).
STRENGTHS = (1.0, 30.0)
LEAST_SHARE = 1e-3


@dataclass(frozen=True)
class Offered:
    """One size and length of a run: `name` of the size, its counts, and its operations."""

    name: str
    n_params: float
    n_tokens: float
    flops: float


def of_ladder(
    ladder: Ladder, rungs: Sequence[str], multiples: Sequence[float], most: float
) -> list[Offered]:
    """The rungs named (none: those with fewer parameters than `most`), at multiples of Chinchilla's
    tokens. Raises `ConfigError`, also where no rung is smaller.
    """
    chosen = [ladder.rung(name, "--rung") for name in rungs]
    chosen = chosen or [rung for rung in ladder.rungs.values() if rung.n_params < most]
    if not chosen:
        raise ConfigError(
            f"ladder {ladder.name}: no rung is smaller than the target's {short(most)} parameters; "
            "name larger ones with --rung"
        )
    return [
        Offered(rung.name, float(rung.n_params), float(tokens), rung.training_flops(tokens))
        for rung in chosen
        for tokens in (rung.n_tokens(multiple) for multiple in multiples)
    ]


def of_table(design: Design, most: float) -> list[Offered]:
    """The sizes of a table up to `most`, each at its longest budget. Raises `ConfigError`."""
    n, d = design.n_params, design.n_tokens
    known = np.isfinite(n) & np.isfinite(d)
    found = []
    for size in np.unique(n[known & (n <= most)]):
        rows = known & (n == size)
        tokens, active = float(d[rows].max()), float(np.median(design.n_active[rows]))
        found.append(Offered(short(size), float(size), tokens, 6 * active * tokens))
    if not found:
        raise ConfigError(
            "the table has no run with n_params and n_tokens up to the target's size; give a "
            "--ladder of sizes to choose from"
        )
    return found


def draw_mixtures(
    count: int, prior: np.ndarray, low: np.ndarray, high: np.ndarray, seed: int
) -> np.ndarray:
    """Mixtures (count, K) about a prior (K,) within bounds; the first is the prior, so bounded."""
    rng = np.random.default_rng([seed, 5])
    least, most = np.log(STRENGTHS)
    strength = np.exp(rng.uniform(least, most, size=(count, 1)))
    alpha = np.maximum(prior, LEAST_SHARE) * strength
    drawn = rng.standard_gamma(alpha) + 1e-12
    drawn /= drawn.sum(1, keepdims=True)
    drawn[0] = prior
    return drawn if is_free(low, high) else project(drawn, low, high)


def offer(
    domains: list[str],
    sizes: Sequence[Offered],
    mixtures: np.ndarray,
    prices: Prices,
    *,
    available: Mapping[str, float] | None = None,
    target_tokens: float = np.nan,
    repeatable: bool = False,
) -> tuple[Candidates, list[Offered]]:
    """Every size at every mixture, and the size of each candidate.

    With `available`, the tokens that domains have for a target of `target_tokens`, runs have them
    cut so that they repeat each source as the target would (arXiv 2606.07597).
    """
    which = [size for size in sizes for _ in mixtures]
    n, d, flops = (
        np.array([getattr(size, key) for size in which], float)
        for key in ("n_params", "n_tokens", "flops")
    )
    tokens = None
    if available is not None:
        whole = np.array([available.get(name, np.inf) for name in domains], float)
        each = {size: cuts(whole, size.n_tokens, target_tokens) for size in sizes}
        tokens = np.array([each[size] for size in which])
    price = prices.of(n, d, flops)
    ratios = np.tile(mixtures, (len(sizes), 1))
    return Candidates(domains, ratios, n, d, price, tokens, repeatable), which
