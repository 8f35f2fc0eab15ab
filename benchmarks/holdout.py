"""How well do the laws predict rows that they were not fitted to?

`python benchmarks/holdout.py` scores laws on splits of the rows with answers; `--predict DIR`
writes predictions for the query rows, whose answers are not here, same rows and same order.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

# The arrays are small: a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import record
from answers import LEVEL, Answer, answer_for, repeated_losses
from queries import Way, predict_all
from repetition import RepeatedLaw, fit_repeated
from scores import compare_scores, score_tables
from splits import Splits, figures, splits_of
from tables import QUICK_LAWS, Table, tables

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.holdout import Split
from olmo_mixlaw.runs import Design

# Losses (R, T) of a split's held rows, and the ends of their intervals where a law has some.
Prediction = tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]
Predictor = Callable[[Split], Prediction]


def by_law(table: Table, design: Design, law: str, level: bool) -> Predictor:
    """Fits of a law, one for all splits that fit the same rows."""
    fits: dict[bytes, Answer] = {}

    def predict(split: Split) -> Prediction:
        key, test = split.train.tobytes(), design.take(split.test)
        if key not in fits:
            train = design.take(split.train)
            fits[key] = answer_for(train, law, level=level, has_embeddings=table.has_embeddings)
        rows = (test.ratios, test.n_params, test.n_tokens)
        return fits[key].losses(*rows), fits[key].ends(*rows)

    return predict


def by_law_in_fresh_tokens(design: Design, unique: np.ndarray, law: str, level: bool) -> Predictor:
    """A law in effective tokens, where the table repeats its data."""

    def predict(split: Split) -> Prediction:
        test = design.take(split.test)
        return repeated_losses(
            design.take(split.train),
            unique[split.train],
            test.n_params,
            test.n_tokens,
            unique[split.test],
            law,
            level=level,
        )

    return predict


def by_repetition(design: Design, unique: np.ndarray, excess: bool) -> Predictor:
    """Muennighoff et al.'s law, with or without its excess parameters."""

    def predict(split: Split) -> Prediction:
        train, test = design.take(split.train), design.take(split.test)
        fitted: RepeatedLaw = fit_repeated(
            train.n_params, train.n_tokens, unique[split.train], train.losses[:, 0], excess=excess
        )
        guess = fitted.predict(test.n_params, test.n_tokens, unique[split.test])[:, None]
        return guess, fitted.ends(guess)

    return predict


def predictors(table: Table, design: Design, laws: list[str], level: bool) -> dict[str, Predictor]:
    """The laws asked for and, where data repeat, each in effective tokens and its authors'."""
    found = {law: by_law(table, design, law, level) for law in laws}
    if table.unique is not None:
        unique = table.unique()
        for law in laws:
            found[f"{law}, repeats"] = by_law_in_fresh_tokens(design, unique, law, level)
        found["repeated D'"] = by_repetition(design, unique, excess=False)
        found["repeated D' N'"] = by_repetition(design, unique, excess=True)
    return found


def scored(predict: Predictor, design: Design, parts: Splits) -> dict[str, object]:
    """The figures of a law on the folds of one split, and its processor seconds a fold."""
    start = time.process_time()
    held = [(part, *predict(part)) for part in parts]
    seconds = (time.process_time() - start) / len(parts)
    return {**figures(design, held), "cpu_seconds": seconds}


def compare(laws: list[str], name: str, folds: int, level: bool, quick: bool) -> list[dict]:
    """A row a (split, law) of one table."""
    if name in score_tables():
        return compare_scores(name, level, quick)
    table, rows = tables()[name], []
    design, splits = splits_of(table, folds, quick)
    quick_laws = list(QUICK_LAWS[: None if len(design.domains) > 1 else 1])
    laws = laws or (quick_laws if quick else table.laws.split(","))
    asked = predictors(table, design, laws, level)
    print(f"{name:9s} {len(design)} runs, {len(splits)} splits, {len(asked)} laws", flush=True)
    for split, parts in splits.items():
        for law, predict in asked.items():
            try:
                row = scored(predict, design, parts)
            except FitError as error:
                print(f"{name:9s} {split:26s} {law:18s} {error}", flush=True)
                continue
            rows.append({"table": name, "split": split, "law": law, **row})
            print(line(rows[-1]), flush=True)
    return rows


def line(row: dict) -> str:
    """A row of the report as it is printed."""
    return (
        f"{row['table']:9s} {row['split']:26s} {row['law']:18s} mre {row['mre']:7.3f} %  "
        f"bias {row['bias']:+7.3f} %  mixture R2 {row['mixture_r2']:6.3f}  rho {row['rho']:6.3f}  "
        f"regret {row['regret']:.4f}  inside {100 * row['coverage']:3.0f} %  "
        f"reach {row['reach']:.3g}  {row['cpu_seconds']:.2f} s"
    )


def main() -> None:
    every = [*tables(), *score_tables()]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--laws", default="", help="laws to score, with commas")
    parser.add_argument("--tables", default="", help="only these tables: " + ", ".join(every))
    parser.add_argument("--folds", type=int, default=4, help="folds of the held mixtures")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="tables at a time")
    parser.add_argument("--quick", action="store_true", help="cheap laws, few folds and steps")
    parser.add_argument("--no-level", action="store_true", help="without the level beyond a table")
    parser.add_argument("--predict", metavar="DIR", type=Path, help="write query predictions")
    parser.add_argument("--law", default="stack", help="the law of --predict")
    options = parser.parse_args()
    only = [name for name in options.tables.split(",") if name]
    unknown = [name for name in only if name not in every]
    if unknown:
        parser.error(f"--tables: {unknown[0]!r} is none of {', '.join(every)}")
    level = not options.no_level
    if options.predict:
        predict_all(options.predict, Way(options.law, level), only)
        return
    laws = [law for law in options.laws.split(",") if law]
    names = only or every
    call = partial(compare, folds=options.folds, level=level, quick=options.quick)
    rows, failed = [], []
    with ProcessPoolExecutor(options.jobs) as pool:
        work = {name: pool.submit(call, laws, name) for name in names}
        for name, one in work.items():
            try:
                rows += one.result()
            except Exception as error:  # one table's fault costs no other its figures
                failed.append(f"{name}: {type(error).__name__}: {error}")
    how = {"folds": options.folds, "interval": LEVEL, "level": level, "law_settings": "defaults"}
    record.save("holdout_quick" if options.quick else "holdout", rows, **how)
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
