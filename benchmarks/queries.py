"""Predictions for the query files: the same rows in the same order, with the column they lack.

Every file is answered by the procedure of the figures: `answers` for losses, `scores` for scores.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from answers import Answer, answer_for, repeated_losses
from pooled_scores import of_mixtures
from scores import answered, score_tables
from tables import FINE_TUNED, METRIC, SWARMS, Table, find, read, tables

from olmo_mixlaw.atomic import open_atomic

LOWDATA = "_n64"
# The first ten tasks of the fine-tuning table are its in-domain ones.
IN_DOMAIN = 10


@dataclass(frozen=True)
class Way:
    """How queries are answered: which law, and whether with the level beyond the table."""

    law: str = "stack"
    level: bool = True

    def answer(self, table: Table) -> Answer:
        return answer_for(
            table.load(), self.law, level=self.level, has_embeddings=table.has_embeddings
        )


def write(frame: pd.DataFrame, folder: Path, name: str) -> Path:
    """Write `name.csv` whole or not at all."""
    path = folder / f"{name}.csv"
    with open_atomic(path, newline="") as file:
        frame.to_csv(file, index=False, lineterminator="\n")
    print(f"wrote {path} ({len(frame)} rows)", flush=True)
    return path


def predict_all(folder: Path, way: Way, only: list[str]) -> list[Path]:
    """Answer every query that is here, or those of the tables named; the files written."""
    written = []
    for name, table in tables().items():
        # The corpora of one file are answered together, when the first of them comes up.
        first = table.corpus in ("", _corpora(table)[0])
        if first and (not only or name in only):
            written += _timed(name, lambda t=table: losses_of_query(t, way), folder)
    for name, table in score_tables().items():
        if not only or name in only:
            written += _timed(
                name, lambda t=table: {f"{t.stem}.query": answered(t, way.level)}, folder
            )
    return written


def _timed(
    name: str, call: Callable[[], dict[str, pd.DataFrame | None]], folder: Path
) -> list[Path]:
    start = time.perf_counter()
    found = call()
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    return [write(frame, folder, stem) for stem, frame in found.items() if frame is not None]


def losses_of_query(table: Table, way: Way) -> dict[str, pd.DataFrame | None]:
    """The answered query of a table of losses, by the name of its file; nothing without a query."""
    if table.stem in SWARMS.values():
        return swarm_metrics(table, way)
    if find(f"{table.stem}.query") is None:
        return {}
    query = read(f"{table.stem}.query")
    name = f"{table.stem}.query{LOWDATA if table.lowdata else ''}"
    if table.stem == FINE_TUNED:
        return {name: fine_tuned_scores(table, query)}
    if table.corpus:
        return {name: query.assign(loss=_by_corpus(table, query, way))}
    if table.unique is not None:
        n, d, unique = (query[c].to_numpy(float) for c in ("N", "D", "unique_tokens"))
        runs = table.load()
        loss = repeated_losses(runs, table.unique(), n, d, unique, way.law, level=way.level)[0]
        return {name: query.assign(loss=loss[:, 0])}
    return {name: query.assign(loss=way.answer(table).of_query(query))}


def _corpora(table: Table) -> list[str]:
    return [t.corpus for t in tables().values() if t.stem == table.stem]


def _by_corpus(table: Table, query: pd.DataFrame, way: Way) -> np.ndarray:
    loss = np.full(len(query), np.nan)
    for one in tables().values():
        some = (query["corpus"] == one.corpus).to_numpy() if "corpus" in query else []
        if one.stem == table.stem and np.any(some):
            loss[some] = way.answer(one).of_query(query[some])
    return loss


def swarm_metrics(table: Table, way: Way) -> dict[str, pd.DataFrame | None]:
    """Olmix's second file for the query's mixtures: the columns of the answered one."""
    if find(f"{table.stem}.query.ratios") is None:
        return {}
    asked, known = read(f"{table.stem}.query.ratios"), read(f"{table.stem}.metrics")
    answer = way.answer(table)
    ratios = asked[answer.design.domains].to_numpy(float)
    ratios = ratios / ratios.sum(1, keepdims=True)
    nothing = np.full(len(asked), np.nan)
    losses = answer.losses(ratios, nothing, nothing)
    values = dict(zip(answer.fit.targets, losses.T, strict=True))
    columns = {c: asked[c] if c in asked else values[c] for c in known}
    return {f"{table.stem}.query.metrics": pd.DataFrame(columns)}


def fine_tuned_scores(table: Table, query: pd.DataFrame) -> pd.DataFrame:
    """Scores of fine-tuned models, and the means that the answered file has of them."""
    found, _ = of_mixtures(read(table.stem), query)
    names = list(found)
    means = {"avg_id+ood": names, "avg_id": names[:IN_DOMAIN], "avg_ood": names[IN_DOMAIN:]}
    averaged = {METRIC + mean: found[some].mean(axis=1) for mean, some in means.items()}
    return pd.concat([query, found.assign(**averaged)], axis=1)
