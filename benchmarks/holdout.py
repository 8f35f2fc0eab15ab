"""How well do the laws predict rows that they were not fitted to?

`python benchmarks/holdout.py` scores laws on splits of the rows with answers; `--predict DIR`
writes predictions for the query rows, whose answers are not here, same rows and same order.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

# The arrays are small: a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import record
from routed import predict_routed

from olmo_mixlaw.advice.two_step import fit_two_step
from olmo_mixlaw.atomic import open_atomic
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.holdout import Split, reaching_splits, sampled_splits
from olmo_mixlaw.laws.choice.selection import score
from olmo_mixlaw.laws.choice.uncertainty import coverage
from olmo_mixlaw.laws.fitting import Settings, fit
from olmo_mixlaw.runs import WEIGHT, Design, RunTable

HERE = Path(__file__).resolve().parent
FOLDERS = [
    HERE / "data",
    HERE.parent.parent / "shared" / "data" / "reference",
    HERE.parent / "shared" / "data" / "reference",
]
# Ratios in some public tables are rounded; they are rescaled to sum to 1.
WEIGHT_TOLERANCE = 0.05
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
LAWS = (
    "no_mixture,log_linear,exponential,bimix,autoscale,transfer,power_transfer,two_pool,additive,"
    "joint,interaction,modulated,competition,competition_noise,camel_shares,camel_dual,"
    "camel_hybrid,regmix,kriging,regimes,stack"
)
LOOSE = Settings(strict=False)
# Of held-out losses, how many lie in the intervals that should hold this part of them?
LEVEL = 0.9


def find(stem: str) -> Path | None:
    """The table's file, or None where this machine doesn't have it."""
    return next((f / f"{stem}.csv.gz" for f in FOLDERS if (f / f"{stem}.csv.gz").exists()), None)


def load(path: Path, lowdata: bool = False) -> Design:
    frame = pd.read_csv(path)
    if lowdata:
        frame = frame[frame["lowdata"] == 1]
    return RunTable(frame, source=str(path), weight_tolerance=WEIGHT_TOLERANCE).design()


def tables() -> dict[str, tuple[Path, bool]]:
    """Name -> (file, only the rows marked lowdata), for the tables that are here."""
    found = {}
    for name, stem in MIXTURES.items():
        path = find(stem)
        if path is None:
            continue
        found[name] = (path, False)
        if name.startswith("p10"):
            found[f"{name}-64"] = (path, True)
    return found


def scored(law: str, design: Design, parts: list[Split]) -> dict[str, float]:
    start, held, inside, losses = time.process_time(), [], 0.0, 0
    for part in parts:
        test = design.take(part.test)
        fitted = fit(law, design.take(part.train), settings=LOOSE)
        held.append((part, fitted.predict(test.ratios, test.n_params, test.n_tokens)))
        count = int(np.isfinite(test.losses).sum())
        inside, losses = inside + count * coverage(fitted, test, level=LEVEL), losses + count
    seconds = (time.process_time() - start) / len(parts)
    return {**score(design, held), "coverage": inside / losses, "cpu_seconds": seconds}


def compare(laws: list[str], name: str, folds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    design = load(*tables()[name])
    splits = {"held mixtures": sampled_splits(design, folds, 0)}
    beyond = reaching_splits(design)
    if beyond:
        splits[beyond[0].name.replace("_", " ")] = beyond
    for split, parts in splits.items():
        for law in laws:
            try:
                row = scored(law, design, parts)
            except FitError as error:
                print(f"{name:9s} {split:15s} {law:18s} {error}", flush=True)
                continue
            rows.append({"table": name, "split": split, "law": law, **row})
            print(
                f"{name:9s} {split:15s} {law:18s} mre {row['mre']:7.3f} %  mixture R2 "
                f"{row['mixture_r2']:6.3f}  rho {row['rho']:6.3f}  regret {row['regret']:.4f}  "
                f"inside {100 * row['coverage']:3.0f} %  {row['cpu_seconds']:.2f} s",
                flush=True,
            )
    return rows


def write(frame: pd.DataFrame, folder: Path, name: str) -> None:
    with open_atomic(folder / f"{name}.csv", newline="") as file:
        frame.to_csv(file, index=False, lineterminator="\n")
    print(f"wrote {folder / name}.csv ({len(frame)} rows)", flush=True)


def predict_mixtures(folder: Path, law: str, only: list[str]) -> None:
    for name, stem in MIXTURES.items():
        path, query_path = find(stem), find(f"{stem}.query")
        if path is None or query_path is None or (only and name not in only):
            continue
        query = pd.read_csv(query_path)
        for low in (False, True) if name.startswith("p10") else (False,):
            start = time.perf_counter()
            loss = predicted(load(path, low), query, law)
            print(f"{name}{'-64' if low else ''}: {time.perf_counter() - start:.0f} s")
            write(query.assign(loss=loss), folder, f"{stem}.query" + ("_n64" if low else ""))


def predicted(design: Design, query: pd.DataFrame, law: str) -> np.ndarray:
    fitted = fit(law, design, settings=LOOSE)
    ratios = query[[WEIGHT + d for d in design.domains]].to_numpy(float)
    ratios = ratios / ratios.sum(1, keepdims=True)
    n, d = (query[c].to_numpy(float) for c in ("N", "D"))
    if not fitted.scene.has_n and np.nanmax(n) > 1.05 * fitted.scene.n_range[1]:
        return one_size_predicted(design, ratios, n, d, query, law)
    unique, back = np.unique(np.c_[ratios, n, d], axis=0, return_inverse=True)
    k = ratios.shape[1]
    losses = fitted.predict(unique[:, :k], unique[:, k], unique[:, k + 1])
    column = query["domain"].map({t: i for i, t in enumerate(fitted.targets)}).to_numpy()
    return losses[back.ravel(), column]


def one_size_predicted(
    design: Design, ratios: np.ndarray, n: np.ndarray, d: np.ndarray, query: pd.DataFrame, law: str
) -> np.ndarray:
    """A table of one size says nothing of others: the prior's size and data terms stand in."""
    fitted = fit(law, design, settings=LOOSE)
    low = np.nanmin(design.losses, axis=0)
    base = fitted.predict(ratios)
    n0, d0 = float(np.nanmax(design.n_params)), float(np.nanmax(design.n_tokens))
    drop = 0.3 * (1 - (n / n0) ** -0.22) + 0.15 * (1 - (d / d0) ** -0.3)
    losses = base - low * drop[:, None]
    column = query["domain"].map({t: i for i, t in enumerate(fitted.targets)}).to_numpy()
    return losses[np.arange(len(query)), column]


def predict_ladder(folder: Path) -> None:
    path, query_path = find("p6_olmo_ladder"), find("p6_olmo_ladder.query")
    if path is None or query_path is None:
        return
    chain, query = fit_two_step(pd.read_csv(path)), pd.read_csv(query_path)
    bpb, accuracy = chain.predict(query["N"].to_numpy(float), query["D"].to_numpy(float))
    row = np.arange(len(query))
    column = query["task"].map({t: i for i, t in enumerate(chain.tasks)}).to_numpy()
    result = query.assign(bpb=bpb[row, column], accuracy=accuracy[row, column])
    write(result, folder, "p6_olmo_ladder.query")


def _same(value: np.ndarray) -> np.ndarray:
    return value


def _error_rate(value: np.ndarray) -> np.ndarray:
    return np.maximum(1 - value, 1e-3)


def predict_scaling(folder: Path, stem: str) -> None:
    """Tables without a mixture: Chinchilla's law on losses and error rates, a corpus at a time."""
    path, query_path = find(stem), find(f"{stem}.query")
    if path is None or query_path is None:
        return
    frame, query = pd.read_csv(path), pd.read_csv(query_path)
    value = np.full(len(query), np.nan)
    for corpus, part in query.groupby("train_data"):
        known = frame[frame["train_data"] == corpus]
        known = known if known["run_id"].nunique() >= 6 else frame
        for kind, some in part.groupby("kind"):
            to_loss = _same if kind == "loss" else _error_rate
            rows = known[known["kind"] == kind]
            wide = rows.pivot_table(index="run_id", columns="task", values="value", aggfunc="first")
            runs = rows.drop_duplicates("run_id").set_index("run_id").loc[wide.index]
            n, d = runs["N"].to_numpy(float), runs["D"].to_numpy(float)
            design = Design(
                list(wide.index),
                ["all"],
                list(wide.columns),
                np.ones((len(wide), 1)),
                n,
                n,
                d,
                to_loss(wide.to_numpy(float)),
            )
            fitted = fit("no_mixture", design, settings=LOOSE)
            guess = fitted.predict(
                np.ones((len(some), 1)), some["N"].to_numpy(float), some["D"].to_numpy(float)
            )
            column = some["task"].map({t: i for i, t in enumerate(wide.columns)}).to_numpy()
            value[some.index] = to_loss(guess[np.arange(len(some)), column])
    write(query.assign(value=value), folder, f"{stem}.query")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--laws", default=LAWS, help="laws to score, with commas")
    parser.add_argument("--tables", default="", help="only these tables: " + ", ".join(MIXTURES))
    parser.add_argument("--folds", type=int, default=4, help="folds of the held mixtures")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="tables at a time")
    parser.add_argument("--predict", metavar="DIR", type=Path, help="write query predictions")
    parser.add_argument("--law", default="stack", help="the law of --predict")
    options = parser.parse_args()
    only = [name for name in options.tables.split(",") if name]
    if options.predict:
        if not only:
            predict_ladder(options.predict)
            path, query_path = find("p7_clark_moe"), find("p7_clark_moe.query")
            if path is not None and query_path is not None:
                query = pd.read_csv(query_path)
                loss = predict_routed(pd.read_csv(path), query)
                write(query.assign(loss=loss), options.predict, "p7_clark_moe.query")
            predict_scaling(options.predict, "p8_gadre")
            predict_scaling(options.predict, "p9_kempner")
        predict_mixtures(options.predict, options.law, only)
        return
    names = [name for name in tables() if not only or name in only]
    with ProcessPoolExecutor(options.jobs) as pool:
        laws = options.laws.split(",")
        found = pool.map(compare, repeat(laws), names, repeat(options.folds))
        rows = [row for part in found for row in part]
    record.save("holdout", rows, folds=options.folds, level=LEVEL, law_settings="defaults")


if __name__ == "__main__":
    main()
