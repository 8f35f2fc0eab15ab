"""Ways of choosing which runs to buy from a pool: orders that look at no loss.

An order lists the runs as they are bought until the budget is spent; a run that doesn't fit in
what is left is passed over. Ours and Bayesian optimisation, which look at what they bought, are in
`design_plans` and `design_bayes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from design_pools import Pool

# Runs in the order in which they are bought (<= C,).
Order = Callable[[Pool, np.random.Generator], np.ndarray]
# Pool, ascending budgets and a seed -> the runs bought with each.
Strategy = Callable[[Pool, Sequence[float], int], list[np.ndarray]]
# Proxies below this size rank mixtures less well (Olmix, arXiv 2602.12237).
SMALLEST_PROXY = 1.5e7
# A budget may be spent to its last digit.
SLACK = 1e-9
# A mixture that another size has counts as this far away (of sqrt ratios, at most 2^.5).
TOUCHING = 0.2


def affordable(pool: Pool, order: np.ndarray, budget: float) -> np.ndarray:
    """The runs that an order buys with a budget (runs,)."""
    chosen, left = [], budget * (1 + SLACK)
    for run in order:
        if pool.price[run] <= left:
            chosen.append(run)
            left -= pool.price[run]
    return np.array(chosen, int)


def by_order(order: Order) -> Strategy:
    """The strategy that buys along one order, whatever the budget."""

    def buy(pool: Pool, budgets: Sequence[float], seed: int) -> list[np.ndarray]:
        found = order(pool, np.random.default_rng(seed))
        return [affordable(pool, found, budget) for budget in budgets]

    return buy


def grid_at_random(pool: Pool, rng: np.random.Generator) -> np.ndarray:
    """The full grid, its runs in a random order."""
    return rng.permutation(len(pool))


def dirichlet(pool: Pool, rng: np.random.Generator) -> np.ndarray:
    """Random mixtures, each size with an equal share of the compute spent."""
    return _balanced(pool, rng.permutation(len(pool)), pool.price)


def one_set_a_size(pool: Pool, rng: np.random.Generator) -> np.ndarray:
    """As in CAMEL, whose rule isn't public in full: every size has equally many mixtures, a set of
    its own, so that no mixture comes again while others are left."""
    order = rng.permutation(len(pool))
    seen: set[int] = set()
    fresh, again = [], []
    waiting = [[run for run in order if pool.n_params[run] == n] for n in pool.sizes]
    while any(waiting):
        for runs in waiting:
            if not runs:
                continue
            new = next((run for run in runs if pool.mixture[run] not in seen), None)
            chosen = runs[0] if new is None else new
            runs.remove(chosen)
            seen.add(pool.mixture[chosen])
            (again if new is None else fresh).append(chosen)
    return np.array(fresh + again, int)


def one_size(pool: Pool, rng: np.random.Generator) -> np.ndarray:
    """As in Olmix: all runs at the smallest size that suffices as a proxy."""
    enough = pool.sizes[pool.sizes >= SMALLEST_PROXY]
    size = enough[0] if len(enough) else pool.sizes[-1]
    return rng.permutation(np.flatnonzero(pool.n_params == size))


def largest_size(pool: Pool, rng: np.random.Generator) -> np.ndarray:
    """All runs at the largest size."""
    return rng.permutation(np.flatnonzero(pool.n_params == pool.sizes[-1]))


def two_sizes(pool: Pool, rng: np.random.Generator) -> np.ndarray:
    """Half of the mixtures that two sizes share, each at both; of the pairs that share at least
    half as many mixtures as any pair does, the two sizes furthest apart."""
    pairs = [(a, b) for i, a in enumerate(pool.sizes) for b in pool.sizes[i + 1 :]]
    at = {n: set(pool.mixture[pool.n_params == n]) for n in pool.sizes}
    shared = {pair: at[pair[0]] & at[pair[1]] for pair in pairs}
    most = max(len(some) for some in shared.values())
    small, large = max(
        (pair for pair in pairs if 2 * len(shared[pair]) >= most), key=lambda p: p[1] / p[0]
    )
    order = rng.permutation(sorted(shared[small, large]))[: -(-len(shared[small, large]) // 2)]
    both = [
        np.flatnonzero((pool.mixture == mixture) & np.isin(pool.n_params, [small, large]))
        for mixture in order
    ]
    return np.concatenate(both)


def spread(pool: Pool, rng: np.random.Generator) -> np.ndarray:
    """Space-filling: at each size the mixture furthest from those that it has, and then from all;
    sizes share the compute equally."""
    points = np.sqrt(pool.ratios)
    order: list[int] = []
    near_size = {n: np.full(len(pool), np.inf) for n in pool.sizes}
    near_all = np.full(len(pool), np.inf)
    left, spent = np.ones(len(pool), bool), dict.fromkeys(pool.sizes, 0.0)
    tie = rng.random(len(pool))
    while left.any():
        size = min((n for n in pool.sizes if left[pool.n_params == n].any()), key=spent.__getitem__)
        runs = np.flatnonzero(left & (pool.n_params == size))
        far = np.minimum(near_size[size][runs], near_all[runs] + TOUCHING)
        best = runs[np.lexsort((tie[runs], far))[-1]]
        order.append(int(best))
        left[best] = False
        spent[size] += pool.price[best]
        apart = np.linalg.norm(points - points[best], axis=1)
        near_size[size] = np.minimum(near_size[size], apart)
        near_all = np.minimum(near_all, apart)
    return np.array(order)


def _balanced(pool: Pool, order: np.ndarray, price: np.ndarray) -> np.ndarray:
    """The order rearranged: the size that has cost least so far comes next."""
    waiting = {n: [run for run in order if pool.n_params[run] == n] for n in pool.sizes}
    spent, found = dict.fromkeys(pool.sizes, 0.0), []
    while any(waiting.values()):
        size = min((n for n in pool.sizes if waiting[n]), key=spent.__getitem__)
        run = waiting[size].pop(0)
        spent[size] += price[run]
        found.append(run)
    return np.array(found, int)


# Where there is one size, all but these are the same thing.
ONE_SCALE = ("full grid", "spread")
ORDERS: dict[str, Order] = {
    "full grid": grid_at_random,
    "CAMEL-like": one_set_a_size,
    "Olmix-like": one_size,
    "largest size": largest_size,
    "Dirichlet": dirichlet,
    "two sizes": two_sizes,
    "spread": spread,
}


def strategies_for(pool: Pool) -> dict[str, Strategy]:
    """The orders that differ on this pool, by name."""
    names = ONE_SCALE if len(pool.sizes) == 1 else tuple(ORDERS)
    return {name: by_order(ORDERS[name]) for name in names}
