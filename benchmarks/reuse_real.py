"""Reuse on real runs: a reuse swarm of Olmix beside the full swarm whose space it lies in.

In p13 the source `existing` holds 43 sources at the ratios of a public configuration, and the
others are 21 topics that the full swarm p12 has too. Mixtures that nobody trained are judged by
laws fitted to runs that no arm used. `benchmarks/reuse.py` runs it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from tables import FOLDERS, SWARM_SIZE, SWARM_TOKENS, joined

from olmo_mixlaw.advice import optimum
from olmo_mixlaw.laws import Settings, fit
from olmo_mixlaw.runs import Design

LOOSE = Settings(strict=False)
AT = (SWARM_SIZE, SWARM_TOKENS)
# The target run of Olmix's case study and how often it may see a source.
TARGET, EPOCHS = 1e12, 4.0
TRUTHS = ("stack", "additive")
FITTED = "shared_power"
# Weight of KL(mixture || mean of the runs) in the objective: none, and Olmix's.
PULLS = (0.0, 0.05)
HALVES = 2
NEW_RUNS = (48, 96, 192)
PDF = "s2pdf"


def sources() -> pd.DataFrame:
    """Source, tokens and share of `existing`, from Olmix's public configurations."""
    path = next(f / "olmix_sources.csv" for f in FOLDERS if (f / "olmix_sources.csv").exists())
    return pd.read_csv(path).set_index("source")


def within(
    ratios: np.ndarray, names: list[str], known: pd.DataFrame, domains: list[str]
) -> np.ndarray:
    """Mixtures (R, F) of the reuse swarm by the full swarm's sources (R, K)."""
    found = np.zeros((len(ratios), len(domains)))
    inner = known["existing"].reindex(domains).fillna(0.0).to_numpy()
    for name, column in zip(names, ratios.T, strict=True):
        if name == "existing":
            found += column[:, None] * inner
        else:
            found[:, domains.index(name.replace("s2pdfv1", PDF))] += column
    return found


def expanded(design: Design, known: pd.DataFrame, domains: list[str]) -> Design:
    """The reuse swarm's runs by the full swarm's sources."""
    ratios = within(design.ratios, design.domains, known, domains)
    return replace(design, domains=domains, ratios=ratios)


def thinned(design: Design, step: int) -> Design:
    """The design with every `step`-th of its tasks."""
    some = slice(None, None, step)
    return replace(design, targets=design.targets[some], losses=design.losses[:, some])


def chosen(law: str, design: Design, most: np.ndarray) -> dict[float, np.ndarray]:
    """By pull towards the mean of the runs, the mixture that a law fitted to them would choose."""
    found = fit(law, design, settings=LOOSE, level=False)
    upper = dict(zip(design.domains, most.tolist(), strict=True))
    keep = [design.domains.index(name) for name in found.domains]
    mixtures = {}
    for kl in PULLS:
        best = optimum(found, *AT, upper={name: upper[name] for name in found.domains}, kl=kl)
        mixtures[kl] = np.zeros(len(design.domains))
        mixtures[kl][keep] = best.ratios
    return mixtures


def real(p11: Design, p12: Design, p13: Design, inside: Design, step: int) -> dict:
    """The direct comparison on real runs; `inside` are those of p13 by p12's sources."""
    observed = {
        name: {
            "runs": len(d),
            "best": float(d.losses.mean(1).min()),
            "median": float(np.median(d.losses.mean(1))),
        }
        for name, d in (("full swarm p12", p12), ("reuse swarm p13", p13))
    }
    predicted = []
    for law in (FITTED, "stack", "log_linear"):
        guess = fit(law, p12, settings=LOOSE, level=False).predict(inside.ratios, *AT)
        mean, truth = guess.mean(1), inside.losses.mean(1)
        mre = 100 * np.abs(guess / inside.losses - 1).mean()
        rho = float(spearmanr(mean, truth)[0])
        off = float(100 * (mean.mean() / truth.mean() - 1))
        predicted.append({"law": law, "mre": float(mre), "rho": rho, "level_off": off})
    thin11, thin12 = thinned(p11, step), thinned(p12, step)
    return {
        "with old runs": with_p11(thin11, thin12),
        "observed": observed,
        "p13 predicted from p12": predicted,
        "chosen": judged(thinned(p12, step), thinned(p13, step)),
    }


def judged(p12: Design, p13: Design) -> list[dict]:
    """Mixtures that half of the full swarm, or the reuse swarm, chooses, judged by the other half.

    The judge is a law fitted to the other half alone: it saw no run of any arm.
    """
    known, domains, rows = sources(), p12.domains, []
    most = np.minimum(1.0, EPOCHS * known["tokens"].reindex(domains).to_numpy(float) / TARGET)
    units = within(np.eye(len(p13.domains)), p13.domains, known, domains)
    reduced = np.min(np.where(units > 0, most / np.maximum(units, 1e-12), 1.0), axis=1)
    inside, half = expanded(p13, known, domains), len(p12) // 2
    short = chosen(FITTED, p13, np.minimum(reduced, 1.0))
    for seed in range(HALVES):
        order = np.random.default_rng(seed).permutation(len(p12))
        existing = units[p13.domains.index("existing")]
        arms = {"old mixture as it is": dict.fromkeys(PULLS, existing)}
        for n in (len(p13), half):
            arms[f"full swarm, {n} runs"] = chosen(FITTED, p12.take(order[:n]), most)
        arms[f"reuse, {len(p13)} runs"] = {kl: ratios @ units for kl, ratios in short.items()}
        both = joined(p12.take(order[:half]), inside)
        arms[f"both, {half + len(p13)} runs"] = chosen(FITTED, both, most)
        for law in TRUTHS:
            judge = fit(law, p12.take(order[half:]), settings=LOOSE, level=False)
            for arm, by_pull in arms.items():
                for kl, ratios in by_pull.items():
                    value = float(judge.predict(ratios, *AT).mean())
                    rows.append(
                        {"judge": law, "seed": seed, "arm": arm, "pull": kl, "value": value}
                    )
    return rows


def with_p11(p11: Design, p12: Design) -> list[dict]:
    """Runs of p12 that were held out, predicted from some of it alone and with p11's old runs."""
    domains = p12.domains
    ratios = np.zeros((len(p11), len(domains)))
    for name, column in zip(p11.domains, p11.ratios.T, strict=True):
        ratios[:, domains.index(f"dclm:{name}")] = column
    old, rows = replace(p11, domains=domains, ratios=ratios), []
    for seed in range(HALVES):
        order = np.random.default_rng(seed).permutation(len(p12))
        test = p12.take(order[len(p12) // 2 :])
        truth = test.losses.mean(1)
        for n in NEW_RUNS:
            some = p12.take(order[:n])
            for arm, design in (("alone", some), ("with 96 old runs", joined(old, some))):
                found = fit(FITTED, design, settings=LOOSE, level=False)
                keep = [domains.index(name) for name in found.domains]
                shares = test.ratios[:, keep]
                guess = found.predict(shares / shares.sum(1, keepdims=True), *AT)
                mre = float(100 * np.abs(guess / test.losses - 1).mean())
                rho = float(spearmanr(guess.mean(1), truth)[0])
                rows.append({"seed": seed, "new_runs": n, "arm": arm, "mre": mre, "rho": rho})
    return rows


def print_real(found: dict) -> None:
    print(pd.DataFrame(found["observed"]).T.to_string())
    helped = pd.DataFrame(found["with old runs"]).groupby(["new_runs", "arm"], sort=False)
    print(helped[["mre", "rho"]].mean().to_string(float_format="{:.3f}".format))
    print(pd.DataFrame(found["p13 predicted from p12"]).to_string(index=False))
    table = pd.DataFrame(found["chosen"]).groupby(["judge", "pull", "arm"], sort=False)["value"]
    print(table.agg(["mean", "std"]).to_string(float_format="{:.4f}".format), flush=True)
