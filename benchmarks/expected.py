"""Does the mixture of least expected loss beat that of least predicted loss?

`python benchmarks/expected.py` fits laws to a few runs of tables with hundreds, takes the best
mixture of the fit alone and over 16 refits, and asks both what they are worth of a kriging fitted
to all runs: in loss above its own best mixture.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import record
from answers import LOOSE
from tables import tables

from olmo_mixlaw.advice import optimum
from olmo_mixlaw.laws.choice.uncertainty import bootstrap
from olmo_mixlaw.laws.fitting import fit
from olmo_mixlaw.runs import Design

TABLES = {"p10r": (32, 64), "p10w": (32, 64), "p2": (40, 100)}
LAWS = ("transfer", "power_transfer", "modulated")
REFITS, DRAWS = 16, 8


def smallest(design: Design) -> Design:
    """The runs of the smallest size, which are hundreds."""
    return design.take(design.n_params <= 1.01 * design.n_params.min())


def rows_of(name: str, counts: tuple[int, ...]) -> list[dict[str, object]]:
    """A row a law, number of runs and draw of them."""
    design = smallest(tables()[name].load())
    truth = fit("kriging", design, settings=LOOSE, level=False)

    def worth(ratios: np.ndarray) -> float:
        return float(truth.predict(ratios).mean())

    least = worth(optimum(truth).ratios)
    rows: list[dict[str, object]] = []
    for count in counts:
        for law in LAWS:
            for draw in range(DRAWS):
                order = np.random.default_rng(draw).permutation(len(design))
                runs = design.take(order[:count])
                found = fit(law, runs, settings=LOOSE, level=False)
                refits = list(bootstrap(found, runs, replicates=REFITS, seed=draw))
                tried = runs.ratios[np.nanmean(runs.losses, axis=1).argmin()]
                rows.append(
                    {
                        "table": name,
                        "runs": count,
                        "law": law,
                        "best tried": worth(tried) - least,
                        "least predicted": worth(optimum(found).ratios) - least,
                        "least expected": worth(optimum(found, refits=refits).ratios) - least,
                    }
                )
        print(f"{name}, {count} runs", flush=True)
    return rows


def main() -> None:
    known = tables()
    rows = [
        row for name, counts in TABLES.items() if name in known for row in rows_of(name, counts)
    ]
    frame = pd.DataFrame(rows)
    frame["gain"] = frame["least predicted"] - frame["least expected"]
    frame["better"] = frame["gain"] > 0
    mean = frame.groupby(["table", "runs", "law"], sort=False).mean().reset_index()
    error = frame.groupby(["table", "runs", "law"], sort=False)["gain"].sem().to_numpy()
    mean["gain error"] = error
    print(mean.round(4).to_string(index=False))
    print(frame.groupby("law", sort=False)[["gain", "better"]].mean().round(4).to_string())
    record.save("expected", mean.to_dict("records"), refits=REFITS, draws=DRAWS)


if __name__ == "__main__":
    main()
