"""How many bits a parameter stores, by how often each fact is seen: kappa(E) = a E / (E + b).

Facts alone, more of them than a model can hold, at several numbers of exposures tell both
constants. Published: about 1 bit at 100 exposures and 2 at 1,000 (arXiv 2404.05405).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from olmo_mixlaw.advice.knowledge.facts import Facts
from olmo_mixlaw.errors import DataError
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.runs.table import WEIGHT

REPLICATES = 200
# A set that is known to this part is no measure of capacity.
KNOWN = 0.95
ALONE = 0.999
_LEAST_RUNS = 4
# How many times as many exposures are asked for where storage still grows.
_LONGER = 4.0


@dataclass(frozen=True)
class Storage:
    """kappa(E) = ceiling E / (E + half), bits a parameter; arrays (B,), the best fit first."""

    ceiling: np.ndarray
    half: np.ndarray
    error: float = float("nan")
    source: str = "arXiv 2404.05405: 1 bit a parameter at 100 exposures, 2 at 1,000"

    def bits(self, exposures: np.ndarray) -> np.ndarray:
        """Bits a parameter at these exposures (B,)."""
        return self.ceiling * exposures / (exposures + self.half)


PUBLISHED = Storage(np.array([2.2]), np.array([120.0]))


def fit_storage(
    exposures: Sequence[float] | np.ndarray,
    bits: Sequence[float] | np.ndarray,
    known: Sequence[float] | np.ndarray | None = None,
    seed: int = 0,
) -> Storage:
    """Fit kappa(E) to bits a parameter (R,) stored by runs on facts alone, with a bootstrap.

    `known` (R,) is the part of its set that a run knows; runs that know all leave capacity over,
    so they are left out. Raises `DataError` naming what to add.
    """
    e, k = np.asarray(exposures, float), np.asarray(bits, float)
    if known is not None:
        over = np.asarray(known, float) < KNOWN
        if not over.any():
            raise DataError(
                "facts-only runs: every run knows its whole set, so none was full; add runs with "
                "several times as many facts"
            )
        e, k = e[over], k[over]
    if len(e) < _LEAST_RUNS or len(np.unique(e)) < 3:
        raise DataError(
            f"facts-only runs: {len(e)} runs with more facts than fit, at {len(np.unique(e))} "
            f"numbers of exposures; add some, to {_LEAST_RUNS} runs at three numbers or more"
        )
    best = _fitted(e, k)
    if best[1] > e.max():
        raise DataError(
            f"facts-only runs: storage never saturates: it still grows in proportion at "
            f"{e.max():.3g} exposures, so its ceiling isn't known; add runs of "
            f"{_LONGER * e.max():.3g} exposures or more"
        )
    rng = np.random.default_rng(seed)
    found = [best]
    for _ in range(REPLICATES):
        rows = rng.integers(0, len(e), len(e))
        if len(np.unique(e[rows])) >= 2:
            found.append(_fitted(e[rows], k[rows]))
    ceiling, half = np.array(found).T
    spread = k - best[0] * e / (e + best[1])
    error = float(np.sqrt(np.mean(spread**2)))
    return Storage(ceiling, half, error, f"{len(e)} facts-only runs, rms {error:.2g} bits")


def storage_of(table: RunTable, domain: str, facts: Facts, seed: int = 0) -> Storage:
    """`fit_storage` on those runs of a table that saw `domain` alone, from their `answer_bits`.

    A run stores n (bits - answers x answer_bits): what it no longer has to be told. Raises
    `DataError`.
    """
    runs = table.losses.drop_duplicates("run_id").set_index("run_id")
    if WEIGHT + domain not in runs:
        raise DataError(
            f"{table.source}: no domain {domain!r} (it has: {', '.join(table.domains)})"
        )
    alone = runs[runs[WEIGHT + domain] >= ALONE]
    scores = table.scores
    said = scores[(scores["metric"] == "answer_bits") & scores["run_id"].isin(alone.index)]
    if said.empty:
        raise DataError(
            f"{table.source}: no run on {domain} alone with the metric answer_bits; add runs of "
            f"{domain}=1 and score them on its recall"
        )
    left = said.groupby("run_id")["value"].mean()
    alone = alone.loc[left.index]
    stored = np.maximum(facts.bits - facts.answers * left.to_numpy(float), 0) * facts.n
    exposures = facts.exposures(1.0, alone["n_tokens"].to_numpy(float))
    return fit_storage(
        exposures, stored / alone["n_params"].to_numpy(float), stored / facts.bits_in_all, seed
    )


def _fitted(e: np.ndarray, k: np.ndarray) -> tuple[float, float]:
    start = np.log([max(1.3 * k.max(), 1e-6), np.median(e)])

    def errors(theta: np.ndarray) -> np.ndarray:
        ceiling, half = np.exp(theta)
        return ceiling * e / (e + half) - k

    bounds = (start - 9.0, start + 9.0)
    ceiling, half = np.exp(least_squares(errors, start, bounds=bounds).x)
    return float(ceiling), float(half)
