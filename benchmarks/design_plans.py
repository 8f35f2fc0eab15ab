"""Our planner as a way of choosing which runs to buy: each budget is a batch of `plan_runs`.

The planner sees the losses of earlier batches, never those of runs that it has not bought, and is
not told which mixtures are held out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from design_pools import Pool
from design_strategies import SLACK

from olmo_mixlaw.advice.design import Candidates, Target, plan_runs


def planned(
    pool: Pool, budgets: Sequence[float], seed: int, error_part: float = 0.5
) -> list[np.ndarray]:
    """The runs bought with each of the ascending budgets: those of the last one, and a batch.

    `error_part` is how much the forecast's error counts beside the choice of mixture.
    """
    offered = Candidates(pool.design.domains, pool.ratios, pool.n_params, pool.n_tokens, pool.price)
    target = Target(float(pool.held.n_params[0]), float(pool.held.n_tokens[0]))
    bought, found = np.array([], int), []
    for budget in budgets:
        left = np.setdiff1d(np.arange(len(pool)), bought)
        money = budget * (1 + SLACK) - pool.price[bought].sum()
        if len(left) and pool.price[left].sum() <= money:
            bought = np.r_[bought, left]
        elif len(left) and pool.price[left].min() <= money:
            plan = plan_runs(
                offered.take(left),
                target=target,
                budget=money,
                seen=pool.bought(bought) if len(bought) else None,
                targets=pool.design.targets,
                error_part=error_part,
                seed=seed,
            )
            bought = np.r_[bought, left[plan.rows]]
        found.append(bought)
    return found
