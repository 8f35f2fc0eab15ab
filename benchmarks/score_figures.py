"""Benchmark scores of runs that were not fitted: the package's routes beside other methods.

`python benchmarks/scores.py` prints a row a (table, split, method) and saves them. Splits are of
the rows with answers: fitted up to a size, or half of a size's corpora or mixtures held out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pooled_scores
import record
import score_peers
from answers import LEVEL, answer_for
from scipy.stats import norm
from scores import CONSTANT_RATE, column_figures, held_steps
from splits import NAN, scale_groups, short
from tables import FINE_TUNED, METRIC, find, load_fine_tuned, read, sizes_of

from olmo_mixlaw.advice.curve import chance_floors
from olmo_mixlaw.advice.ladder import Target, predict_tasks
from olmo_mixlaw.advice.two_step import TwoStepOptions
from olmo_mixlaw.errors import DataError, FitError

REFITS, QUICK_REFITS = 40, 10
ENDS = TwoStepOptions()
# Laws of mixtures, each on error rates: no mixture, Olmix's, Shukor's, RegMix's, a Gaussian
# process.
MIXTURE_LAWS = ("no_mixture", "log_linear", "additive", "regmix", "kriging")


@dataclass(frozen=True)
class Guess:
    """Scores of the held rows, NaN where a method says nothing, and ends of intervals if any."""

    score: pd.Series
    low: pd.Series | None = None
    high: pd.Series | None = None


# Fitted rows and held rows without scores -> a guess.
Method = Callable[[pd.DataFrame, pd.DataFrame], Guess]
# Name of a split, fitted rows, held rows.
Parts = Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]


@dataclass(frozen=True)
class Contest:
    """A table: its splits, rows of run_id, N, D, task and accuracy, and who predicts them."""

    parts: Callable[[], Parts]
    methods: Callable[[int], dict[str, Method]]


def ends_of(frame: pd.DataFrame, options: TwoStepOptions = ENDS) -> pd.DataFrame:
    """A row a (run, task): its end, loss and accuracy the means of the last checkpoints."""
    last = frame.sort_values("D").groupby(["run_id", "task"], sort=False).tail(options.window)
    means = last.groupby(["run_id", "task"]).agg(
        N=("N", "max"), D=("D", "max"), bpb=("bpb", "mean"), accuracy=("accuracy", "mean")
    )
    return means.reset_index()


def ladder_parts() -> Parts:
    """Checkpoints up to a size, and where the larger runs ended; then from short runs alone."""
    frame = read("p6_olmo_ladder")
    for name, train, held in held_steps(frame):
        if train["N"].nunique() > 1:
            yield name, train, ends_of(held)
    ends = frame.groupby("run_id")[["N", "D"]].max()
    ratio = (ends["D"] / ends["N"] / 20).round(1)
    groups = scale_groups(frame["N"].to_numpy(float))
    many = frame["run_id"].map(ratio)
    for step in (1, 2):
        train = frame[(groups <= step) & (many <= 2)]
        held = ends_of(frame[(groups == groups.max()) & (many >= 5)])
        top = short(train["N"].max())
        yield f"<= {top}, 2xC -> {short(held['N'].max())}, 5xC", train, held


def gemstone_parts() -> Parts:
    """Every checkpoint a run; the last is from early checkpoints to late ones of a larger size."""
    frame = read("p14_gemstones_tasks")
    runs = frame["run_id"] + "@" + frame["checkpoint"].astype(str)
    frame = frame.assign(run_id=runs, bpb=frame["answer_loss"], cluster=frame["run_id"])
    for name, train, held in held_steps(frame):
        if len(scale_groups_of(train)) > 1:
            yield name, train, held
    groups = scale_groups(frame["N"].to_numpy(float))
    train = frame[(groups < groups.max()) & (frame["D"] < 1.05e11)]
    held = frame[(groups == groups.max()) & (frame["D"] > 1.95e11)]
    yield f"<= {short(train['N'].max())}, 100B -> {short(held['N'].max())}, 200B", train, held


def scale_groups_of(frame: pd.DataFrame) -> np.ndarray:
    """The sizes that are apart."""
    return np.unique(scale_groups(frame["N"].to_numpy(float)))


def corpus_parts() -> Parts:
    """DCLM's corpora: half of those of the largest answered size, and all of them."""
    yield from held_steps(read("p15_dclm"))


def mixture_parts() -> Parts:
    """Fine-tuning mixtures: half of those of the largest answered size, and all of them."""
    frame = read(FINE_TUNED).reset_index(drop=True)
    n = sizes_of(frame)
    largest = np.flatnonzero(n == n.max())
    order = np.random.default_rng(0).permutation(largest)
    for name, held in (("half of the mixtures", order[: len(order) // 2]), ("7B", largest)):
        rest = frame.drop(index=held)
        yield (
            name if name != "7B" else f"<= {short(sizes_of(rest).max())} -> 7B",
            rest,
            frame.loc[held],
        )


def chained(options: TwoStepOptions, refits: int) -> Method:
    """The package's two steps with their intervals."""

    def method(train: pd.DataFrame, held: pd.DataFrame) -> Guess:
        scales = held[["N", "D"]].drop_duplicates()
        targets = [Target(str(i), float(n), float(d)) for i, (n, d) in enumerate(scales.to_numpy())]
        _, found = predict_tasks(train, targets, options=options, replicates=refits)
        names = {(t.n_params, t.n_tokens): t.name for t in targets}
        keys = [names[float(n), float(d)] for n, d in held[["N", "D"]].to_numpy()]
        rows = found.set_index(["model", "task"]).loc[list(zip(keys, held["task"], strict=True))]
        values = (
            pd.Series(rows[c].to_numpy(float), held.index) for c in ("predicted", "low", "high")
        )
        return Guess(*values)

    return method


def task_methods(options: TwoStepOptions) -> Callable[[int], dict[str, Method]]:
    """Those that read N, D, a task's own loss and its accuracy."""
    smooth = options.window > 1

    def direct(train: pd.DataFrame, held: pd.DataFrame) -> Guess:
        tasks = list(held["task"].unique())
        floors = dict(zip(tasks, chance_floors(tasks).tolist(), strict=True))
        found = score_peers.direct(train, held, floors, smooth)
        return Guess(found.fillna(last(train, held).score))

    def ladder(train: pd.DataFrame, held: pd.DataFrame) -> Guess:
        return Guess(score_peers.ladder(train, held, "bpb", smooth)["accuracy"])

    def last(train: pd.DataFrame, held: pd.DataFrame) -> Guess:
        ends = ends_of(train, options)
        best = ends.loc[(ends["N"] * ends["D"].astype(float)).groupby(ends["task"]).idxmax()]
        return Guess(held["task"].map(best.set_index("task")["accuracy"]))

    return lambda refits: {
        "two_step": chained(options, refits),
        "ladder's authors": ladder,
        "direct": direct,
        "the largest run's": last,
    }


def corpus_methods(refits: int) -> dict[str, Method]:
    """Those that are given the losses of held runs; a mean where they say nothing."""

    def pooled(train: pd.DataFrame, held: pd.DataFrame) -> Guess:
        found = pooled_scores.of_corpora(train, held)
        return _around(found.value, found.sd, 0.0, 1.0)

    def own_loss(train: pd.DataFrame, held: pd.DataFrame) -> Guess:
        """The ladder authors' second step."""
        guess = pd.Series(np.nan, held.index)
        for task, asked in held.groupby("task"):
            rows = train[train["task"] == task].dropna(subset=["task_loss", "accuracy"])
            given = asked.dropna(subset=["task_loss"])
            if len(rows) > 4 and len(given):
                theta = score_peers.fit_sigmoid(*rows[["task_loss", "accuracy"]].to_numpy(float).T)
                guess[given.index] = score_peers.sigmoid(theta, given["task_loss"].to_numpy(float))
        return Guess(guess)

    def constant(train: pd.DataFrame, held: pd.DataFrame) -> Guess:
        rows = train[train["N"] == train["N"].max()]
        return Guess(held["task"].map(rows.groupby("task")["accuracy"].mean()))

    return {"pooled": pooled, "sigmoid of its own loss": own_loss, "the largest size's": constant}


def mixture_methods(refits: int) -> dict[str, Method]:
    """Those that see mixtures and sizes alone; wide rows, a column a task."""

    def pooled(train: pd.DataFrame, held: pd.DataFrame) -> Guess:
        value, sd = pooled_scores.of_mixtures(train, held)
        return _around(value.stack(), sd.stack(), 0.0, 1.0)

    def law(name: str) -> Method:
        def method(train: pd.DataFrame, held: pd.DataFrame) -> Guess:
            both = load_fine_tuned()
            where = {run: i for i, run in enumerate(both.run_ids)}
            some = (
                both.take(np.array([where[str(r)] for r in f["run_id"]])) for f in (train, held)
            )
            known, asked = some
            found = answer_for(known, name, level=False).losses(
                asked.ratios, asked.n_params, asked.n_tokens
            )
            columns = [METRIC + t for t in asked.targets]
            return Guess(1 - pd.DataFrame(found, held.index, columns).stack())

        return method

    return {"pooled": pooled, **{name: law(name) for name in MIXTURE_LAWS}}


def _around(value: pd.Series, sd: pd.Series, least: float, most: float) -> Guess:
    """The central interval of a normal error, cut to what a score can be."""
    wide = float(norm.ppf(0.5 + LEVEL / 2)) * sd
    return Guess(value, (value - wide).clip(lower=least), (value + wide).clip(upper=most))


CONTESTS = {
    "p6": ("p6_olmo_ladder", Contest(ladder_parts, task_methods(ENDS))),
    "p14-tasks": ("p14_gemstones_tasks", Contest(gemstone_parts, task_methods(CONSTANT_RATE))),
    "p15": ("p15_dclm", Contest(corpus_parts, corpus_methods)),
    "p18": (FINE_TUNED, Contest(mixture_parts, mixture_methods)),
}


def compare_methods(name: str, quick: bool) -> list[dict[str, object]]:
    """A row a (split, method) of a table; with `quick` the last split and few refits."""
    contest = CONTESTS[name][1]
    parts, rows = list(contest.parts()), []
    for split, train, held in parts[-1:] if quick else parts:
        truth = truth_of(held)
        asked = held.drop(columns=["accuracy", *(c for c in held if c.startswith(METRIC))],
                          errors="ignore")  # fmt: skip
        for method, predict in contest.methods(QUICK_REFITS if quick else REFITS).items():
            start = time.process_time()
            try:
                guess = predict(train, asked)
            except (FitError, DataError) as error:
                print(f"{name:9s} {split:28s} {method:24s} {error}", flush=True)
                continue
            row = {
                "table": name,
                "split": split,
                "method": method,
                **figures(truth, guess),
                "reach": _reach(train, held),
                "cpu_seconds": time.process_time() - start,
            }
            rows.append(row)
            print(line(row), flush=True)
    return rows


def truth_of(held: pd.DataFrame) -> pd.DataFrame:
    """Rows (task, N, accuracy) of a held part, long or a column a metric."""
    if "accuracy" in held:
        return held[["task", "N", "accuracy"]]
    metrics = [c for c in held if c.startswith(METRIC) and not c.startswith(f"{METRIC}avg_")]
    long = held[metrics].stack().rename("accuracy").to_frame()
    long["task"] = long.index.get_level_values(1)
    return long.assign(N=pd.Series(sizes_of(held), held.index).loc[long.index.get_level_values(0)]
                       .to_numpy())  # fmt: skip


def figures(truth: pd.DataFrame, guess: Guess) -> dict[str, float]:
    """MRE and bias (%), mean absolute error, rho over the runs of a task and size, coverage.

    `answered` is the part of rows that the method says something of; the figures are of those.
    """
    score = guess.score.reindex(truth.index)
    known = truth["accuracy"].notna() & score.notna()
    inside = NAN
    if guess.low is not None and guess.high is not None:
        low, high = (x.reindex(truth.index)[known] for x in (guess.low, guess.high))
        actual = truth["accuracy"][known]
        inside = float(((low <= actual) & (actual <= high)).mean())
    found = column_figures(truth, truth["accuracy"], score, "task")
    return {
        **{name: found[name] for name in ("mre", "bias", "mae", "rho")},
        "coverage": inside,
        "answered": float(known.sum() / truth["accuracy"].notna().sum()),
    }


def _reach(train: pd.DataFrame, held: pd.DataFrame) -> float:
    """Compute of the held rows over the largest fitted; of sizes where tokens aren't known."""
    if "D" not in held:
        return float(sizes_of(held).max() / sizes_of(train).max())
    known, asked = (f["N"].astype(float) * f["D"] for f in (train, held))
    return float(asked.median() / known.max())


def line(row: dict) -> str:
    """A row as it is printed."""
    return (
        f"{row['table']:9s} {row['split']:28s} {row['method']:24s} mre {row['mre']:6.2f} %  "
        f"bias {row['bias']:+6.2f} %  off {row['mae']:.4f}  rho {row['rho']:6.3f}  "
        f"inside {100 * row['coverage']:3.0f} %  of {100 * row['answered']:3.0f} %  "
        f"reach {row['reach']:.3g}  {row['cpu_seconds']:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the last split of each, few refits")
    parser.add_argument("--tables", nargs="+", choices=list(CONTESTS), default=list(CONTESTS))
    options = parser.parse_args()
    rows = []
    for name in options.tables:
        if find(CONTESTS[name][0]) is None:
            print(f"{name}: {CONTESTS[name][0]} is not on this machine")
            continue
        rows += compare_methods(name, options.quick)
    record.save("scores_quick" if options.quick else "scores", rows, interval=LEVEL)


if __name__ == "__main__":
    main()
