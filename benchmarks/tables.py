"""The public tables of the benchmarks: where each lies, how it is read, who its peers are.

A table that this machine doesn't have is left out. `benchmarks/data` holds copies of those whose
licence allows it; the others are looked for beside the project.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from olmo_mixlaw.runs import Design, RunTable
from olmo_mixlaw.runs.importers import two_files

HERE = Path(__file__).resolve().parent
FOLDERS = [
    HERE / "data",
    *(
        beside / "shared" / "data" / part
        for beside in (HERE.parent.parent, HERE.parent)
        for part in ("open", "reference")
    ),
]
# Ratios in some public tables are rounded; they are rescaled to sum to 1.
WEIGHT_TOLERANCE = 0.05
LAWS = (
    "no_mixture,log_linear,exponential,bimix,autoscale,transfer,power_transfer,two_pool,additive,"
    "joint,interaction,modulated,competition,competition_noise,camel_shares,camel_dual,"
    "camel_hybrid,regmix_fast,shared_power,shrunk_powers,kriging,cokriging,regimes,stack"
)
# Of tables that have many targets or one mixture: Olmix's law, RegMix, Chinchilla's, ours.
SWARM_LAWS = "log_linear,regmix,no_mixture,shared_power,stack"
SIZE_LAWS = "no_mixture,stack"
# `--quick`: those that take less than a second on every table.
QUICK_LAWS = ("no_mixture", "log_linear", "transfer")
FINE_TUNED, RATIO, METRIC = "p18_admire", "ratio_", "metric_"
# An error rate counts as at least this much: laws speak of positive numbers.
LEAST_ERROR = 1e-3
# Olmix's proxies (arXiv 2602.12237), parameters and about so many tokens.
SWARM_SIZE, SWARM_TOKENS = 30e6, 3e9


@dataclass(frozen=True)
class Table:
    """A table with answers, read by `load`; `stem` is its file's name, to which `.query` belongs.

    `laws` are scored on it unless others are asked for. `has_embeddings` is whether its N counts
    the embeddings, `unique` gives the tokens before repeats (R,) where the table repeats. `later`
    reads rows of a larger size that are for judging only and are never fitted. `by_compute` says
    that scales are budgets of compute, not sizes; `lowdata` that this is the small part of another
    table, `corpus` that it is one of several.
    """

    name: str
    stem: str
    load: Callable[[], Design]
    laws: str = LAWS
    has_embeddings: bool = True
    unique: Callable[[], np.ndarray] | None = None
    later: Callable[[], Design] | None = None
    by_compute: bool = False
    lowdata: bool = False
    corpus: str = ""


def find(stem: str) -> Path | None:
    """The table's file, or None where this machine doesn't have it."""
    return next((f / f"{stem}.csv.gz" for f in FOLDERS if (f / f"{stem}.csv.gz").exists()), None)


def read(stem: str) -> pd.DataFrame:
    """A table's rows. Raises `FileNotFoundError` where this machine doesn't have it."""
    path = find(stem)
    if path is None:
        raise FileNotFoundError(f"{stem}.csv.gz is in none of {', '.join(map(str, FOLDERS))}")
    return pd.read_csv(path)


def both(stem: str) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """The rows with answers and the query, or None where either is absent."""
    if find(stem) is None or find(f"{stem}.query") is None:
        return None
    return read(stem), read(f"{stem}.query")


def load_mixtures(stem: str, lowdata: bool = False) -> Design:
    """A tidy table of runs with columns `w_<domain>`."""
    frame = read(stem)
    if lowdata:
        frame = frame[frame["lowdata"] == 1]
    return RunTable(frame, source=stem, weight_tolerance=WEIGHT_TOLERANCE).design()


def load_swarm(stem: str) -> Design:
    """A swarm in Olmix's two files, losses in bits a byte."""
    return two_files(
        find(f"{stem}.ratios") or f"{stem}.ratios.csv.gz",
        find(f"{stem}.metrics") or f"{stem}.metrics.csv.gz",
        n_params=SWARM_SIZE,
        n_tokens=SWARM_TOKENS,
        unit="bits_per_byte",
        weight_tolerance=WEIGHT_TOLERANCE,
    ).design()


def load_sizes(stem: str, corpus: str = "") -> Design:
    """A table of one mixture: columns N, D, domain, loss; of several corpora, those of one."""
    frame = read(stem)
    return one_mixture(frame[frame["corpus"] == corpus] if corpus else frame)


def one_mixture(
    frame: pd.DataFrame, target: str = "domain", value: str = "loss", unit: str = "nats"
) -> Design:
    """Rows (run_id, N, D, target, value) as a design of one domain; a checkpoint is a run."""
    wide = frame.pivot_table(index=["run_id", "N", "D"], columns=target, values=value, sort=False)
    runs, n, d = (wide.index.get_level_values(k).to_numpy() for k in ("run_id", "N", "D"))
    names = [f"{run}@{tokens:.6g}" for run, tokens in zip(runs, d, strict=True)]
    n, ones = n.astype(float), np.ones((len(wide), 1))
    targets = [str(t) for t in wide.columns]
    return Design(
        names, ["all"], targets, ones, n, n, d.astype(float), wide.to_numpy(float), unit, False
    )


def one_source(stem: str) -> pd.DataFrame:
    """The repetition table without the runs on deduplicated text, which is another source."""
    frame = read(stem)
    return frame[frame["dedup"] == 0].reset_index(drop=True)


def load_repeated(stem: str = "p16_repetition") -> Design:
    """The repetition table; rows in the file's order, as `unique_tokens` has them."""
    frame = one_source(stem)
    n = frame["N"].to_numpy(float)
    losses = frame["loss"].to_numpy(float)[:, None]
    names = [f"{run}#{i}" for i, run in enumerate(frame["run_id"])]
    ones, d = np.ones((len(frame), 1)), frame["D"].to_numpy(float)
    return Design(names, ["all"], ["c4"], ones, n, n, d, losses, active_known=False)


def unique_tokens(stem: str = "p16_repetition") -> np.ndarray:
    """Tokens of each run's data before repeats (R,)."""
    return one_source(stem)["unique_tokens"].to_numpy(float)


def load_fine_tuned(stem: str = FINE_TUNED) -> Design:
    """Fine-tuning mixtures and scores: losses are error rates, N the base model's."""
    frame = read(stem)
    metrics = [c for c in frame if c.startswith(METRIC) and not c.startswith(f"{METRIC}avg_")]
    wide = shares_of(frame)
    n = sizes_of(frame)
    losses = np.maximum(1 - frame[metrics].to_numpy(float), LEAST_ERROR)
    names, nothing = [str(r) for r in frame["run_id"]], np.full(len(frame), np.nan)
    domains, targets = list(wide), [m[len(METRIC) :] for m in metrics]
    ratios = wide.to_numpy(float)
    return Design(names, domains, targets, ratios, n, n, nothing, losses, "unstated", False)


def shares_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns `ratio_<source>` as shares that sum to 1, named by the source."""
    wide = frame[[c for c in frame if c.startswith(RATIO)]]
    wide = wide.rename(columns=lambda name: name[len(RATIO) :])
    return wide.div(wide.sum(axis=1), axis=0)


def sizes_of(frame: pd.DataFrame) -> np.ndarray:
    """Parameters (R,) by the last part of the model's name, `Qwen2.5-0.5B`."""
    said = frame["model"].str.extract(r"([\d.]+)B$")[0]
    return said.to_numpy(float) * 1e9


MIXTURES = {
    "p1": "p1_pile17_1B",
    "p2": "p2_regmix_xscale",
    "p3": "p3_dmsl7_xscale",
    "p3s": "p3s_122M10B_to_1p2B30B",
    "p4": "p4_ye_redpajama",
    "p4b": "p4b_ye_5mix",
    "p5": "p5_edmsl4",
    "p10r": "p10_mtdm_redpajama7_1m",
    "p10w": "p10_mtdm_wiki40b6_1m",
}
NO_EMBEDDINGS = ("p3", "p3s", "p4", "p4b")
SWARMS = {"p11": "p11_olmix_dclm24", "p12": "p12_olmix_full64", "p13": "p13_olmix_reuse22"}
CORPORA = ("comma", "dclm", "nemotron")
# Rows of p3 at a size between those fitted and those asked: to develop with, never to be fitted.
DEVELOPMENT = "p3x_dev_680M"


def joined(first: Design, then: Design) -> Design:
    """The runs of both. Raises `ValueError` where their domains or targets differ."""
    if (first.domains, set(first.targets)) != (then.domains, set(then.targets)):
        raise ValueError("two designs of different domains or targets can't be joined")
    order = [then.targets.index(name) for name in first.targets]
    arrays = {
        name: np.concatenate([getattr(first, name), getattr(then, name)])
        for name in ("ratios", "n_params", "n_active", "n_tokens")
    }
    losses = np.concatenate([first.losses, then.losses[:, order]])
    return replace(first, run_ids=[*first.run_ids, *then.run_ids], losses=losses, **arrays)


def tables() -> dict[str, Table]:
    """The tables that are here, by name."""
    found = []
    for name, stem in MIXTURES.items():
        table = Table(name, stem, partial(load_mixtures, stem))
        later = partial(load_mixtures, DEVELOPMENT) if name == "p3" and find(DEVELOPMENT) else None
        found.append(replace(table, has_embeddings=name not in NO_EMBEDDINGS, later=later))
        if name.startswith("p10"):
            low = partial(load_mixtures, stem, True)
            found.append(Table(f"{name}-64", stem, low, lowdata=True))
    for name, stem in SWARMS.items():
        found.append(Table(name, stem, partial(load_swarm, stem), SWARM_LAWS))
    found.append(Table("p14", "p14_gemstones", partial(load_sizes, "p14_gemstones"), SIZE_LAWS))
    repeated = Table("p16", "p16_repetition", load_repeated, SIZE_LAWS, unique=unique_tokens)
    found.append(repeated)
    for corpus in CORPORA:
        load = partial(load_sizes, "p19_marin_isoflops", corpus)
        stem = "p19_marin_isoflops"
        table = Table(f"p19-{corpus}", stem, load, SIZE_LAWS, by_compute=True, corpus=corpus)
        found.append(table)
    found.append(Table("p18", FINE_TUNED, load_fine_tuned, SWARM_LAWS))
    return {t.name: t for t in found if find(t.stem) or find(f"{t.stem}.ratios")}
