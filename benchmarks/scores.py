"""Tables of scores and of single corpora: what answers them, for queries and for held rows alike.

A route takes rows with answers, rows without, and whether losses have a level beyond the table; it
gives the missing columns. Routes are the package's own functions; `SCORES` says whose is which.

`python benchmarks/scores.py` compares them with other methods on rows with answers
(`score_figures`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from answers import answer_for, column_of, fitted_for, rows_of
from pooled_scores import of_corpora
from routed import plain, predict_routed
from scipy.stats import spearmanr
from splits import NAN, scale_groups, short
from tables import LEAST_ERROR, both, find, one_mixture, read

from olmo_mixlaw.advice.scores import ScoreLaw, fit_scores
from olmo_mixlaw.advice.two_step import TwoStep, TwoStepOptions, fit_two_step
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.runs import RunTable

# A corpus with fewer runs than this is answered by all corpora together.
LEAST_RUNS = 6
# Rows that a task's curve needs.
LEAST_ROWS = 5
# Relative errors of smaller scores say nothing.
LEAST_TRUTH = 0.05
# A guess's score on the DCLM tasks whose chance the package doesn't know; 0 for written answers.
DCLM_CHANCE = {
    "agi_eval_lsat": 0.25,
    "agi_eval_sat_en": 0.25,
    "bbq": 0.5,
    "bigbench_conceptual_combinations": 0.25,
    "bigbench_elementary_math_qa": 0.25,
    "bigbench_language_identification": 0.25,
    "bigbench_logical_deduction": 0.25,
    "bigbench_misconceptions": 0.5,
    "bigbench_novel_concepts": 0.25,
    "bigbench_strange_stories": 0.5,
    "bigbench_strategy_qa": 0.5,
    "bigbench_understanding_fables": 0.25,
    "enterprise_pii_classification": 0.5,
    "gpqa": 0.25,
    "logi_qa": 0.25,
    "math_qa": 0.25,
    "openbook_qa": 0.25,
    "siqa": 0.5,
    "winogender": 0.5,
    "winograd": 0.5,
}

# Runs whose learning rate stayed constant: every checkpoint is a run of its own.
CONSTANT_RATE = TwoStepOptions(window=1, skip=0.0)

Route = Callable[[pd.DataFrame, pd.DataFrame, bool], pd.DataFrame]


@dataclass(frozen=True)
class ScoreTable:
    """A table of one row a (run, task): the columns asked for, and the route that gives them."""

    stem: str
    columns: tuple[str, ...]
    route: Route
    law: str
    answered: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame


def two_step(frame: pd.DataFrame, query: pd.DataFrame, level: bool = True) -> pd.DataFrame:
    """The package's chain: task loss from (N, D), accuracy from it; checkpoints end in a run."""
    return _chained(fit_two_step(frame), query, "bpb")


def two_step_of_checkpoints(
    frame: pd.DataFrame, query: pd.DataFrame, level: bool = True
) -> pd.DataFrame:
    """The same where the learning rate is constant: every checkpoint counts as a run of its own."""
    runs = frame["run_id"] + "@" + frame["checkpoint"].astype(str)
    rows = frame.assign(run_id=runs, bpb=frame["answer_loss"])
    return _chained(fit_two_step(rows, CONSTANT_RATE), query, "answer_loss")


def _chained(chain: TwoStep, query: pd.DataFrame, loss: str) -> pd.DataFrame:
    values = chain.predict(query["N"].to_numpy(float), query["D"].to_numpy(float))
    row, column = np.arange(len(query)), column_of(query["task"], chain.tasks)
    named = zip((loss, "accuracy"), values, strict=True)
    return pd.DataFrame({name: v[row, column] for name, v in named}, index=query.index)


def routed_losses(frame: pd.DataFrame, query: pd.DataFrame, level: bool = True) -> pd.DataFrame:
    """Sparse models by the routed law that errs least on the table's own largest sizes."""
    return pd.DataFrame({"loss": predict_routed(frame, query)}, index=query.index)


def by_corpus(frame: pd.DataFrame, query: pd.DataFrame, level: bool = True) -> pd.DataFrame:
    """Chinchilla's law on losses and on error rates, a training corpus at a time."""
    value = pd.Series(np.nan, query.index)
    for corpus, part in query.groupby("train_data"):
        known = frame[frame["train_data"] == corpus]
        known = known if known["run_id"].nunique() >= LEAST_RUNS else frame
        for kind, some in part.groupby("kind"):
            rows = known[known["kind"] == kind]
            is_loss = kind != "accuracy"
            if not is_loss:
                rows = rows.assign(value=_error_rate(rows["value"]))
            design = one_mixture(rows, "task", "value")
            # A level is one of losses: an error rate has another floor.
            answer = answer_for(design, "no_mixture", level=level and is_loss)
            guess = answer.losses(*rows_of(some, design.domains))
            found = guess[np.arange(len(some)), column_of(some["task"], design.targets)]
            value[some.index] = found if is_loss else 1 - found
    return value.to_frame("value")


def _error_rate(accuracy: pd.Series) -> pd.Series:
    return np.maximum(1 - accuracy, LEAST_ERROR)


def curves_of_losses(frame: pd.DataFrame, query: pd.DataFrame, level: bool = True) -> pd.DataFrame:
    """Accuracy by the losses that runs have, and by size and corpus where they have none."""
    return of_corpora(frame, query).value.to_frame("accuracy")


def curve_a_task(frame: pd.DataFrame, query: pd.DataFrame, level: bool = True) -> pd.DataFrame:
    """The peer of `curves_of_losses`: accuracy from given losses by one curve a task.

    A task is read from its own loss, and where it has none from a weighted mean of the others'. A
    run without any loss gets what Chinchilla's law says of error rates at its size.
    """
    losses = frame.pivot_table(index="run_id", columns="task", values="task_loss")
    asked = query.pivot_table(index="run_id", columns="task", values="task_loss")
    asked = asked.reindex(query["run_id"].unique())
    shared = [t for t in losses if losses[t].notna().all() and t in asked]
    value = _by_size(frame, query)
    for task, rows in query.groupby("task"):
        own = task in losses and losses[task].notna().sum() >= LEAST_ROWS
        columns = [task] if own and task in asked else shared
        given = asked.loc[rows["run_id"], columns].notna().all(axis=1).to_numpy()
        score = frame[frame["task"] == task].set_index("run_id")["accuracy"]
        law = _curve(losses[columns].dropna(), score, task)
        if law is not None and given.any():
            order = [f"loss of {name}" for name in columns]
            places = [order.index(name) for name in law.inputs]
            found = asked.loc[rows["run_id"][given], columns].to_numpy(float)[:, places]
            value[rows.index[given]] = law(found)[0][:, 0]
    return value.to_frame("accuracy")


def _curve(losses: pd.DataFrame, score: pd.Series, task: str) -> ScoreLaw | None:
    """The curve of one task over the losses of runs; None where it says nothing."""
    score = score[~score.index.duplicated()].reindex(losses.index).dropna()
    rows = losses.loc[score.index]
    if len(rows) < LEAST_ROWS:
        return None
    long = rows.rename(columns=lambda name: f"loss of {name}").stack().rename("loss")
    long = long.rename_axis(["run_id", "domain"]).reset_index().assign(w_all=1.0)
    scores = pd.DataFrame({"run_id": score.index, "task": task, "metric": "accuracy"})
    table = RunTable(long, scores.assign(value=score.to_numpy()), source=task)
    try:
        return fit_scores(table, "no_mixture", chance={**_written(task), **DCLM_CHANCE}).law
    except FitError:  # at chance in every run
        return None


def _written(task: str) -> dict[str, float]:
    """A floor of 0 for a task that neither the package nor this table's list knows."""
    return {} if any(task.startswith(name) for name in DCLM_CHANCE) else {task: 0.0}


def _by_size(frame: pd.DataFrame, query: pd.DataFrame) -> pd.Series:
    """Accuracies at each N, D by Chinchilla's law on the error rates of all corpora together."""
    rows = frame.assign(value=_error_rate(frame["accuracy"]))
    means = rows.groupby(["N", "D", "task"], as_index=False)["value"].mean()
    design = one_mixture(means.assign(run_id="all"), "task", "value")
    fitted = fitted_for(design, "no_mixture", level=False)
    ratios, n, d = rows_of(query, design.domains)
    # Of one size or budget alone, nothing is known of the others.
    n, d = n if fitted.scene.has_n else np.nan, d if fitted.scene.has_d else np.nan
    guess = fitted.predict(ratios, n, d)
    columns = column_of(query["task"], design.targets)
    return pd.Series(1 - guess[np.arange(len(query)), columns], query.index)


SCORES = {
    "p6": ScoreTable("p6_olmo_ladder", ("bpb", "accuracy"), two_step, "two_step"),
    "p7": ScoreTable("p7_clark_moe", ("loss",), routed_losses, "routed", plain),
    "p8": ScoreTable("p8_gadre", ("value",), by_corpus, "no_mixture"),
    "p9": ScoreTable("p9_kempner", ("value",), by_corpus, "no_mixture"),
    "p14-tasks": ScoreTable(
        "p14_gemstones_tasks", ("answer_loss", "accuracy"), two_step_of_checkpoints, "two_step"
    ),
    "p15": ScoreTable("p15_dclm", ("accuracy",), curves_of_losses, "scores"),
}


def score_tables() -> dict[str, ScoreTable]:
    """Those that are here."""
    return {name: table for name, table in SCORES.items() if find(table.stem)}


def answered(table: ScoreTable, level: bool = True) -> pd.DataFrame | None:
    """The query with its missing columns; None where the table or its query is absent."""
    files = both(table.stem)
    if files is None:
        return None
    frame, query = files
    found = table.route(frame, query, level)
    return query.assign(**{name: found[name] for name in table.columns})


def held_steps(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Up to a size -> the next larger and the largest, as (name, fitted rows, held rows).

    Where runs differ in their corpus, half of those of the largest size are held out first.
    """
    group = scale_groups(frame["N"].to_numpy(float))
    last, found = int(group.max()), []
    if "corpus" in frame:
        names = frame["corpus"][group == last].unique()
        half = np.random.default_rng(0).permutation(names)[: len(names) // 2]
        held = (group == last) & frame["corpus"].isin(half)
        found.append(("half of the corpora", frame[~held], frame[held]))
    for step in range(last):
        top = short(frame["N"][group == step].max())
        for at in sorted({step + 1, last}):
            held = frame[group == at]
            name = f"<= {top} -> {short(held['N'].max())}"
            found.append((name, frame[group <= step], held))
    return found


def compare_scores(name: str, level: bool, quick: bool) -> list[dict[str, object]]:
    """A row a (split, column) of a score table, kinds apart; with `quick` the last split alone."""
    table = SCORES[name]
    splits = held_steps(table.answered(read(table.stem)))
    rows: list[dict[str, object]] = []
    for split, train, held in splits[-1:] if quick else splits:
        # A task that no fitted run has can't be asked for.
        task = "task" if "task" in held else "domain"
        held = held[held[task].isin(train[task])]
        start = time.process_time()
        try:
            found = table.route(train, held.drop(columns=list(table.columns)), level)
        except FitError as error:
            print(f"{name:9s} {split:26s} {table.law:22s} {error}", flush=True)
            continue
        seconds = time.process_time() - start
        compute, known = (f["N"].astype(float) * f["D"] for f in (held, train))
        far = float(compute.median() / known.max())
        kinds = dict(list(held.groupby("kind"))) if "kind" in held else {"": held}
        for column, (kind, part) in product(table.columns, kinds.items()):
            row = column_figures(part, part[column], found[column][part.index], task)
            place = {"table": name, "split": split, "law": f"{table.law}: {kind or column}"}
            rows.append({**place, **row, "reach": far, "cpu_seconds": seconds})
            print(
                f"{name:9s} {split:26s} {place['law']:22s} mre {row['mre']:6.2f} %  bias "
                f"{row['bias']:+6.2f} %  off {row['mae']:.4f}  rho {row['rho']:6.3f}  "
                f"reach {far:.3g}  {seconds:.2f} s",
                flush=True,
            )
    return rows


def column_figures(
    held: pd.DataFrame, truth: pd.Series, guess: pd.Series, task: str
) -> dict[str, float]:
    """MRE and bias (%), mean absolute error, and the rank correlation over runs, task by task."""
    known = truth.notna() & guess.notna()
    off = (guess - truth)[known]
    part = (off / truth[known])[truth[known] >= LEAST_TRUTH]
    ranks = []
    for _, rows in held[known].groupby([task, "N"]):
        t, g = truth[rows.index], guess[rows.index]
        if len(rows) >= 3 and t.nunique() > 1 and g.nunique() > 1:
            ranks.append(spearmanr(t, g).statistic)
    return {
        "mre": 100 * float(part.abs().mean()),
        "bias": 100 * float(part.mean()),
        "mae": float(off.abs().mean()),
        "rho": float(np.mean(ranks)) if ranks else NAN,
        "mixture_r2": NAN,
        "regret": NAN,
        "coverage": NAN,
    }


if __name__ == "__main__":
    from score_figures import main

    main()
