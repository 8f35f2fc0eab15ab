"""Multi-fidelity Bayesian optimisation by BoTorch, as a way of choosing which runs to buy.

A Gaussian process of the mean loss over (sqrt ratios, fidelity), fidelity being the log of a run's
compute, 1 at the target; the next runs are those of most max-value entropy about the target's
optimum for their price, over the runs for sale (qMultiFidelityMaxValueEntropy with an
inverse-cost utility; of one scale, qMaxValueEntropy). Batches, the process fitted anew to each.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from design_pools import Pool
from design_strategies import SLACK, Strategy, affordable

NAME = "BoTorch"
# Batches from the first run to the whole pool; random runs at the smallest size before the first,
# and at each larger size half as many.
BATCHES, FIRST = 16, 4
# Steps of each fit of the process; those of later batches begin where the last one ended.
STEPS = 40
# Mixtures at the target among which the optimum is sought, and draws of its value.
SOUGHT, DRAWS = 256, 16
# Candidates whose worth is found at once.
CHUNK = 128


def bayesian() -> dict[str, Strategy]:
    """The strategy by name; none, saying so, where BoTorch isn't installed."""
    if importlib.util.find_spec("botorch") is None:
        print(f"{NAME}: left out, as botorch is not installed (pip install '.[benchmarks]')")
        return {}
    return {NAME: buy}


def buy(pool: Pool, budgets: Sequence[float], seed: int) -> list[np.ndarray]:
    """The runs bought with each budget: those of the smaller ones, and more."""
    order = _order(pool, max(budgets), seed)
    return [affordable(pool, order, budget) for budget in budgets]


def _order(pool: Pool, budget: float, seed: int) -> np.ndarray:
    """Runs in the order in which they are chosen, the cheapest random ones first."""
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    points = _points(pool)
    chosen: list[int] = []
    for i, size in enumerate(pool.sizes):
        some = rng.permutation(np.flatnonzero(pool.n_params == size))
        chosen += some[: max(1, FIRST >> i)].tolist()
    at_once = max(1, len(pool) // BATCHES)
    left, state = budget * (1 + SLACK) - pool.price[chosen].sum(), None
    while True:
        open_runs = np.setdiff1d(np.arange(len(pool)), chosen)
        open_runs = open_runs[pool.price[open_runs] <= left]
        if not len(open_runs):
            return np.array(chosen, int)
        if len(open_runs) > at_once:
            known = -np.log(pool.objective(np.array(chosen)))
            model = _fitted(points[chosen], known, len(pool.sizes) > 1, state)
            state, worth = model.state_dict(), _worth(pool, points, open_runs, model)
            open_runs = open_runs[np.argsort(-worth, kind="stable")]
        for run in open_runs[:at_once]:
            if pool.price[run] <= left:
                chosen.append(int(run))
                left -= pool.price[run]


def _points(pool: Pool) -> np.ndarray:
    """Square roots of the ratios and, of several sizes, the fidelity (C, K or K + 1)."""
    points = np.sqrt(pool.ratios)
    if len(pool.sizes) == 1:
        return points
    target = np.log(6 * pool.held.n_params[0] * pool.held.n_tokens[0])
    cost = np.log(pool.price)
    return np.c_[points, (cost - cost.min()) / (target - cost.min())]


def _worth(pool: Pool, points: np.ndarray, runs: np.ndarray, model: Any) -> np.ndarray:
    """Entropy of the target's best loss that each run would remove, for its price (runs,)."""
    import torch

    several = len(pool.sizes) > 1
    mixtures = np.unique(np.sqrt(pool.ratios), axis=0)[:SOUGHT]
    sought = np.c_[mixtures, np.ones(len(mixtures))] if several else mixtures
    acquisition = _acquisition(pool, model, torch.tensor(sought), several)
    found = []
    with torch.no_grad():
        for start in range(0, len(runs), CHUNK):
            some = torch.tensor(points[runs[start : start + CHUNK]])
            found.append(acquisition(some[:, None, :]).numpy())
    return np.concatenate(found)


def _fitted(x: np.ndarray, y: np.ndarray, several: bool, before: Any) -> Any:
    """The Gaussian process of points (R, d) and what is to be large (R,).

    `before` is the state of an earlier one to begin from, or None. A fit that ends in a covariance
    which is none begins anew, and at last keeps the prior's middle.
    """
    from linear_operator.utils.errors import NotPSDError

    for state in (before, None):
        model = _process(x, y, several, state)
        try:
            _fit(model)
            return model.eval()
        except NotPSDError:
            continue
    return _process(x, y, several, None).eval()


def _process(x: np.ndarray, y: np.ndarray, several: bool, before: Any) -> Any:
    """A process that isn't fitted yet, its parameters those of `before` where that is given."""
    import torch
    from botorch.models import SingleTaskGP, SingleTaskMultiFidelityGP
    from botorch.models.transforms import Standardize

    inputs, values = torch.tensor(x), torch.tensor(y)[:, None]
    scaled = Standardize(m=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if several:
            model = SingleTaskMultiFidelityGP(
                inputs, values, data_fidelities=[x.shape[1] - 1], outcome_transform=scaled
            )
        else:
            model = SingleTaskGP(inputs, values, outcome_transform=scaled)
    if before is not None:
        kept = {k: v for k, v in before.items() if not k.startswith("outcome_transform")}
        model.load_state_dict(kept, strict=False)
    return model


def _fit(model: Any) -> None:
    """Fit the parameters of a process. Raises `NotPSDError`."""
    from botorch.optim.fit import fit_gpytorch_mll_scipy
    from gpytorch.mlls import ExactMarginalLogLikelihood

    likelihood = ExactMarginalLogLikelihood(model.likelihood, model).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_gpytorch_mll_scipy(likelihood, options={"maxiter": STEPS})


def _acquisition(pool: Pool, model: Any, sought: Any, several: bool) -> Any:
    """Max-value entropy search over the points sought; by price where prices differ."""
    from botorch.acquisition.cost_aware import InverseCostWeightedUtility
    from botorch.acquisition.max_value_entropy_search import (
        qMaxValueEntropy,
        qMultiFidelityMaxValueEntropy,
    )
    from botorch.acquisition.utils import project_to_target_fidelity
    from botorch.models.deterministic import GenericDeterministicModel

    if not several:
        return qMaxValueEntropy(model, sought, num_mv_samples=DRAWS)
    fidelity = sought.shape[1] - 1
    target = 6 * pool.held.n_params[0] * pool.held.n_tokens[0]
    times = float(np.log(target / pool.price.min()))
    cost = GenericDeterministicModel(lambda x: (times * x[..., fidelity:]).exp())
    return qMultiFidelityMaxValueEntropy(
        model,
        sought,
        num_mv_samples=DRAWS,
        cost_aware_utility=InverseCostWeightedUtility(cost_model=cost),
        project=lambda x: project_to_target_fidelity(x, {fidelity: 1.0}, x.shape[-1]),
    )
