"""What repeats are worth: runs of one source seen up to 9,000 times, by four laws in one run.

`python benchmarks/repeats.py` scores Chinchilla's law (no repeats), effective tokens alone,
effective tokens and parameters (arXiv 2305.16264, as there), and ours on answered rows of the
public table that were not fitted: runs held out in folds, and the largest sizes. No query row is
read. Runs on deduplicated text are another source and are left out.
"""

from __future__ import annotations

import os

# The arrays are small: a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from dataclasses import replace

import numpy as np
import record
from repetition import fit_repeated
from tables import load_repeated, unique_tokens

from olmo_mixlaw.laws.fitting import fit
from olmo_mixlaw.laws.law import Settings
from olmo_mixlaw.runs import Design

FOLDS = 5
# Sizes above these are held out, each in turn.
LARGEST = (2.5e9, 1.3e9)
LOOSE = Settings(strict=False)
LAWS = {
    "Chinchilla": "no repeats",
    "D'": "effective tokens",
    "D' N'": "effective tokens and parameters",
    "ours": "effective tokens, and what is learnt by heart",
    "ours, level": "the same, brought to a level beyond the table",
}


def table() -> Design:
    """The runs of one source with the tokens that it had."""
    return replace(load_repeated(), available=unique_tokens()[:, None])


def predicted(law: str, train: Design, test: Design) -> np.ndarray:
    """Losses (R,) of the runs in `test`."""
    at = (test.ratios, test.n_params, test.n_tokens)
    assert train.available is not None
    assert test.available is not None
    if law.startswith("ours"):
        fitted = fit("no_mixture", train, settings=LOOSE, level="level" in law)
        return fitted.predict(*at, available=test.available)[:, 0]
    if law == "Chinchilla":
        blind = replace(train, available=None)
        return fit("no_mixture", blind, settings=LOOSE, level=False).predict(*at)[:, 0]
    seen = (train.n_params, train.n_tokens, train.available[:, 0], train.losses[:, 0])
    peer = fit_repeated(*seen, excess=law == "D' N'")
    return peer.predict(test.n_params, test.n_tokens, test.available[:, 0])


def errors(law: str, design: Design, parts: list[np.ndarray]) -> np.ndarray:
    """Relative errors (%) of all rows held out; `parts` are masks of them."""
    found = []
    for part in parts:
        test = design.take(part)
        guess = predicted(law, design.take(~part), test)
        found.append(100 * np.abs(guess / test.losses[:, 0] - 1))
    return np.concatenate(found)


def main() -> None:
    design = table()
    fold = np.random.default_rng(1).permutation(len(design)) % FOLDS
    splits = {"held runs": [fold == i for i in range(FOLDS)]}
    for size in LARGEST:
        splits[f"above {size:.2g} parameters"] = [design.n_params > size]
    rows = []
    for law, what in LAWS.items():
        for split, parts in splits.items():
            off = errors(law, design, parts)
            row = {"law": law, "what": what, "split": split, "runs": len(off)}
            rows.append({**row, "mre": float(off.mean()), "median": float(np.median(off))})
            print(f"{law:12s} {split:26s} mre {off.mean():6.2f} %  median {np.median(off):5.2f} %")
    found = fit("no_mixture", design, settings=LOOSE, level=False).repetition
    assert found is not None
    assert found.spread is not None
    print(found.text())
    worth = dict(zip(("worth", "memory", "passes"), np.exp(found.logs), strict=True))
    record.save("repeats", rows, folds=FOLDS, repetition=worth, log_spread=list(found.spread))


if __name__ == "__main__":
    main()
