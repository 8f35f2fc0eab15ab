"""Losses invented for the runs that a study plans."""

import numpy as np
import pandas as pd

from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study.checks import planned_design
from olmo_mixlaw.study.plan import plan


def table_of(study, seed=0):
    """The table of a study's planned runs, its losses invented."""
    runs = plan(study)
    design = planned_design(study, runs)
    size = (design.n_params * design.n_tokens)[:, None]
    noise = np.random.default_rng(seed).normal(0, 0.003, design.ratios.shape)
    losses = (1.5 + 2 * (size * (design.ratios + 0.1)) ** -0.15) * np.exp(noise)
    rows = [
        {
            "run_id": run.run_id,
            "n_params": run.rung.n_params,
            "n_tokens": run.n_tokens,
            **{f"w_{d}": run.ratios.get(d, 0.0) for d in study.domains},
            "domain": domain,
            "loss": losses[i, j],
        }
        for i, run in enumerate(runs)
        for j, domain in enumerate(study.domains)
    ]
    return RunTable(pd.DataFrame(rows))
