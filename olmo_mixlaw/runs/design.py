"""The losses of a table as arrays: what a law reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from olmo_mixlaw.runs.units import NATS


@dataclass(frozen=True)
class Design:
    """The losses of a table as arrays: R runs, K domains in the mixture, T targets.

    `ratios` (R, K) sum to 1 a row; `n_params`, `n_active` and `n_tokens` (R,) are NaN where the
    table doesn't say; `losses` (R, T), in `unit`, are NaN where a run lacks a target. Where
    `active_known` is false the table has no active counts and `n_active` repeats `n_params`.
    `n_embedding` (R,) are the parameters in embeddings that `n_params` leave out, 0 where they
    count them, None where the table doesn't say. `available` (R, K) are the tokens that each domain
    had for a run, infinite where nobody says, None where the table has no such columns.
    """

    run_ids: list[str]
    domains: list[str]
    targets: list[str]
    ratios: np.ndarray
    n_params: np.ndarray
    n_active: np.ndarray
    n_tokens: np.ndarray
    losses: np.ndarray
    unit: str = NATS
    active_known: bool = True
    n_embedding: np.ndarray | None = None
    available: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.run_ids)

    def take(self, rows: np.ndarray) -> Design:
        """The design of the runs that `rows` (indices or a mask) selects."""
        rows = np.arange(len(self))[rows]
        return replace(
            self,
            run_ids=[self.run_ids[i] for i in rows],
            ratios=self.ratios[rows],
            n_params=self.n_params[rows],
            n_active=self.n_active[rows],
            n_tokens=self.n_tokens[rows],
            losses=self.losses[rows],
            n_embedding=None if self.n_embedding is None else self.n_embedding[rows],
            available=None if self.available is None else self.available[rows],
        )
