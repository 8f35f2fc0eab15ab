"""Made-up runs of three domains, to be drawn."""

import numpy as np
import pandas as pd

from olmo_mixlaw.runs import RunTable

RATIOS = [[0.7, 0.2, 0.1], [0.4, 0.3, 0.3], [0.1, 0.3, 0.6]]
SIZES = [1e4, 4e4]
NAMES = ("wiki", "code", "bio")


class PowerLaw:
    """Loss falls with the domain's own ratio and with size: enough to draw."""

    def predict(self, ratios, n_params, n_tokens):
        size = np.asarray(n_params, float)[:, None]
        return 1 + 2 * (ratios + 0.05) ** -0.2 * (size / 1e4) ** -0.1


def made_table(mixtures, sizes, seed=0):
    """Runs of every mixture (M, 3) at every size, with losses of `PowerLaw` and a recall."""
    rng = np.random.default_rng(seed)
    losses, scores = [], []
    for size in sizes:
        for i, ratios in enumerate(np.asarray(mixtures, float)):
            run = {"run_id": f"{size:g}-{i}", "n_params": size, "n_tokens": 1e6}
            known = PowerLaw().predict(ratios[None], [size], [1e6])[0] * rng.normal(1, 1e-3, 3)
            weights = dict(zip([f"w_{name}" for name in NAMES], ratios, strict=True))
            for name, loss in zip(NAMES, known, strict=True):
                losses.append({**run, **weights, "mixture": f"m{i}", "domain": name, "loss": loss})
            for metric, value in (("exact_match", ratios[2]), ("answer_bits", 3 * ratios[0])):
                scores.append(
                    {
                        "run_id": run["run_id"],
                        "task": "bio_recall",
                        "metric": metric,
                        "value": value,
                        "stderr": 0.01,
                    }
                )
    return RunTable(pd.DataFrame(losses), pd.DataFrame(scores))
