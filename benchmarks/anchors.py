"""What runs at the scale of interest bring: errors and intervals without, with one, with three.

`python benchmarks/anchors.py` holds the next larger size of each table out, gives one or three of
its mixtures back as anchors (their last checkpoint, or all), and scores the other mixtures there.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import record
from answers import LOOSE
from splits import splits_of
from tables import tables

from olmo_mixlaw.laws.adjusted import law_alone
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.fitting import fit
from olmo_mixlaw.laws.leveling import level_of
from olmo_mixlaw.runs import Design

TABLES = ("p3", "p4", "p4b", "p5")
# Which mixtures are given back is drawn so many times.
DRAWS = 6


def errors(found: Fit, test: Design) -> dict[str, float]:
    """MRE and bias (%), coverage and half width (%) of the 90 % intervals of test runs."""
    rows = (test.ratios, test.n_params, test.n_tokens)
    off = np.log(found.predict(*rows) / test.losses)
    wide = found.half_width(*rows)
    seen = np.isfinite(off)
    return {
        "mre": 100 * float(np.abs(off[seen]).mean()),
        "bias": 100 * float(off[seen].mean()),
        "coverage": float((np.abs(off) <= wide)[seen].mean()),
        "half_width": 100 * float(np.median(wide)),
    }


def shifted(found: Fit, anchors: Design, test: Design) -> dict[str, float]:
    """The plain way: all predictions moved by what the anchors are off, target by target."""
    missed = np.log(
        anchors.losses / found.predict(anchors.ratios, anchors.n_params, anchors.n_tokens)
    )
    off = np.log(found.predict(test.ratios, test.n_params, test.n_tokens) / test.losses)
    off = off + np.nanmean(missed, axis=0)
    seen = np.isfinite(off)
    return {"mre": 100 * float(np.abs(off[seen]).mean()), "bias": 100 * float(off[seen].mean())}


def rows_of(name: str, step: str, law: str, design: Design, test: Design) -> list[dict]:
    """One row a way of anchoring, means over the draws."""
    found = fit(law, design, settings=LOOSE)
    head = {"table": name, "step": step, "law": law}

    rows = []
    mixtures = np.unique(test.ratios, axis=0)
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(mixtures))
        for count in (1, 3):
            given = (test.ratios[:, None] == mixtures[order[:count]]).all(2).any(1)
            if given.all():
                continue
            last = given & (test.n_tokens >= 0.99 * test.n_tokens[given].max())
            rest = test.take(~given)
            rows.append({**head, "anchors": f"none, {count} left out", **errors(found, rest)})
            for what, chosen in (("last checkpoint", last), ("all checkpoints", given)):
                runs = test.take(chosen)
                anchored = replace(found, level=level_of(design, law_alone(found), runs))
                rows.append({**head, "anchors": f"{count}, {what}", **errors(anchored, rest)})
                moved = shifted(found, runs, rest)
                rows.append({**head, "anchors": f"{count}, {what}, plain shift", **moved})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--law", default="modulated")
    parser.add_argument("--tables", default=",".join(TABLES))
    options = parser.parse_args()
    known, found = tables(), []
    for name in options.tables.split(","):
        if name not in known:
            print(f"{name}: not here", flush=True)
            continue
        design, splits = splits_of(known[name], 4)
        for step, [part, *_] in splits.items():
            if "->" in step:
                found += rows_of(
                    name, step, options.law, design.take(part.train), design.take(part.test)
                )
                print(f"{name} {step}", flush=True)
    if not found:
        return
    keys = ["table", "step", "law", "anchors"]
    frame = pd.DataFrame(found).groupby(keys, sort=False).mean().reset_index()
    print(frame.round(2).to_string(index=False))
    record.save("anchors", frame.to_dict("records"), draws=DRAWS, law=options.law)


if __name__ == "__main__":
    main()
