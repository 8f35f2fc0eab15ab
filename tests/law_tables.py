"""Synthetic tables with a known law, for the tests of this folder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from olmo_mixlaw.laws.law import Inputs, Law, Scene
from olmo_mixlaw.laws.sizes import Size
from olmo_mixlaw.runs import Design, RunTable

SEPARABLE = [
    "no_mixture",
    "transfer",
    "power_transfer",
    "shared_power",
    "shrunk_powers",
    "modulated",
    "two_pool",
    "additive",
    "joint",
    "interaction",
    "exponential",
    "log_linear",
    "bimix",
    "autoscale",
]
COUPLED = ["competition", "competition_noise", "camel_shares", "camel_dual", "camel_hybrid"]
DOMAINS = ["web", "code", "wiki", "math"]


def grid(
    sizes: int = 3, mixtures: int = 6, budgets: int = 1, domains: int = 4, seed: int = 0
) -> Design:
    """Every size with every mixture and budget; losses are 1."""
    rng = np.random.default_rng(seed)
    names = [*DOMAINS, *(f"d{i}" for i in range(4, domains))][:domains]
    ratios = np.vstack(
        [rng.dirichlet(np.full(domains, 1.5), mixtures - 1), np.full(domains, 1 / domains)]
    )
    cells = [
        (1e7 * 4.0**s, 1e9 * 2.0**b, ratios[m])
        for s in range(sizes)
        for b in range(budgets)
        for m in range(mixtures)
    ]
    n = np.array([c[0] for c in cells])
    d = np.array([c[1] for c in cells])
    h = np.array([c[2] for c in cells])
    ids = [f"run{i}" for i in range(len(cells))]
    return Design(ids, names, names, h, n, n, d, np.ones((len(cells), domains)))


def with_losses(design: Design, losses: np.ndarray) -> Design:
    return Design(
        design.run_ids,
        design.domains,
        design.targets,
        design.ratios,
        design.n_params,
        design.n_active,
        design.n_tokens,
        losses,
    )


def transfer_losses(design: Design, noise: float = 0.0, seed: int = 1) -> Design:
    """1.5 + .8 n^-.25 + .5 (d sum_j T_j h_j)^-.3, T = 1 on the own domain and .1 elsewhere."""
    n, d = design.n_params / 4e7, design.n_tokens / 1e9
    worth = np.where(np.eye(len(design.domains), dtype=bool), 1.0, 0.1)
    share = design.ratios @ worth.T
    losses = 1.5 + 0.8 * n[:, None] ** -0.25 + 0.5 * (d[:, None] * share) ** -0.3
    rng = np.random.default_rng(seed)
    return with_losses(design, losses * np.exp(noise * rng.normal(size=losses.shape)))


def theta_of(law: Law, scene: Scene, seed: int = 0, spread: float = 0.4) -> np.ndarray:
    """A parameter set drawn from the law's prior, narrowed: (T, P), or (1, P) when coupled."""
    rng = np.random.default_rng(seed)
    rows = []
    for target in range(1 if law.coupled else scene.n_targets):
        items = law.parameters(scene, target)
        rows.append([p.mean + min(p.sd, spread) * rng.normal() for p in items])
    return np.array(rows)


def losses_of(law: Law, theta: np.ndarray, design: Design, scene: Scene) -> np.ndarray:
    inputs = scene.inputs(design.ratios, design.n_params, design.n_tokens)
    loss, _ = law.evaluate(theta, inputs, scene)
    return loss[0] if law.coupled else loss.T


def table_of(design: Design) -> RunTable:
    rows = [
        {
            "run_id": run,
            "n_params": design.n_params[i],
            "n_tokens": design.n_tokens[i],
            **{f"w_{d}": design.ratios[i, k] for k, d in enumerate(design.domains)},
            "domain": target,
            "loss": design.losses[i, t],
        }
        for i, run in enumerate(design.run_ids)
        for t, target in enumerate(design.targets)
    ]
    return RunTable(pd.DataFrame(rows), source="synthetic")


def task_ladder(noise: float = 0.0, checkpoints: int = 12) -> pd.DataFrame:
    """Two tasks, four sizes, three budgets; losses and accuracies from the law itself."""
    rng = np.random.default_rng(0)
    rows = []
    for size in (1e8, 3e8, 1e9, 3e9):
        for budget in (2e9, 1e10, 5e10):
            for i in range(1, checkpoints + 1):
                d = budget * i / checkpoints
                for task, lo, e in (("piqa_val", 0.5, 0.5), ("hellaswag_val", 0.25, 0.4)):
                    loss = e + 0.3 * (size / 1e9) ** -0.3 + 0.25 * (d / 1e10) ** -0.35
                    accuracy = lo + (0.95 - lo) / (1 + np.exp(4 * (loss - 1.0)))
                    rows.append(
                        {
                            "run_id": f"{size:g}-{budget:g}",
                            "N": size,
                            "D": d,
                            "task": task,
                            "bpb": loss * np.exp(noise * rng.normal()),
                            "accuracy": accuracy * np.exp(noise * rng.normal()),
                        }
                    )
    return pd.DataFrame(rows)


WEIGHTS = {"quiz": [0.7, 0.0, 0.3, 0.0], "coding": [0.1, 0.9, 0.0, 0.0]}


def score_of(losses: np.ndarray, task: str) -> np.ndarray:
    """.25 + .7 sigma(6 (2.9 - w . L)): from chance to nearly all right over the table's losses."""
    return 0.25 + 0.7 / (1 + np.exp(-6 * (2.9 - losses @ np.array(WEIGHTS[task]))))


def scored_study(
    noise: float = 0.004, own_loss: bool = False, mixtures: int = 10, instances: int = 4000
) -> RunTable:
    """Three sizes; scores drawn as binomials. With `own_loss`, tasks also have a loss."""
    design = transfer_losses(grid(sizes=3, mixtures=mixtures), noise=noise)
    rng = np.random.default_rng(1)
    rows = []
    for task in WEIGHTS:
        exact = score_of(transfer_losses(design).losses, task)
        drawn = rng.binomial(instances, exact) / instances
        for run, n, value, p in zip(design.run_ids, design.n_params, drawn, exact, strict=True):
            row = {"run_id": run, "n_params": n, "task": task, "n_instances": instances}
            rows.append({**row, "metric": "acc_raw", "value": value})
            if own_loss:
                bits = 1.0 - 0.2 * np.log((p - 0.25) / (0.95 - p))
                rows.append({**row, "metric": "bpb", "value": bits * np.exp(rng.normal() * 0.05)})
    table = table_of(design)
    return replace(table, scores=pd.DataFrame(rows))


def scenes() -> list[tuple[Scene, Inputs]]:
    """Sizes and budgets; foreign targets; one size without budgets."""
    full = grid(sizes=2, mixtures=4, budgets=2)
    full = with_losses(full, np.full((len(full), 4), 3.0) + full.ratios)
    foreign = replace(full, targets=["web", "code", "essays", "news"])
    single = grid(sizes=1, mixtures=5)
    single = with_losses(single, np.full((len(single), 4), 3.0) + single.ratios)
    single = replace(single, n_tokens=np.full(len(single), np.nan))
    return [
        (scene, scene.inputs(d.ratios, d.n_params, d.n_tokens))
        for d in (full, foreign, single)
        for scene in [Scene.of(d)]
    ]


RHO = 0.4


def moe_design(noise: float = 0.002, sparsities: tuple[float, ...] = (2, 8, 32)) -> Design:
    """Losses of the transfer law in N_eff; each mixture at three active sizes and some sparsity."""
    design = grid(sizes=3, mixtures=8)
    sparsity = np.resize(sparsities, len(design))
    rng = np.random.default_rng(0)
    rng.shuffle(sparsity)
    design = replace(design, n_params=design.n_active * sparsity)
    made = transfer_losses(Size("effective", RHO).applied(design), noise=noise)
    return with_losses(design, made.losses)
