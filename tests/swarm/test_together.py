"""Old and new runs as one table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.swarm.reuse import Reuse, plan_reuse
from olmo_mixlaw.swarm.sources import Source, SourceTree
from olmo_mixlaw.swarm.together import read_swarm, together

OLD = SourceTree((Source("web", 6e9), Source("wiki", 2e9)), "old.yaml")
NEW = SourceTree((Source("web", 6e9), Source("wiki", 2e9), Source("code", 2e9)), "new.yaml")


@pytest.fixture
def plan() -> Reuse:
    return plan_reuse({"web": 0.75, "wiki": 0.25}, OLD, NEW)


def two_files(folder: Path, name: str, ratios: dict, metrics: dict) -> tuple[Path, Path]:
    paths = folder / f"{name}.csv", folder / f"{name}-metrics.csv"
    for path, columns in zip(paths, (ratios, metrics), strict=True):
        pd.DataFrame(columns).to_csv(path, index=False)
    return paths


def test_runs_drawn_about_the_old_mixture_join_too(plan: Reuse, tmp_path: Path) -> None:
    old = two_files(
        tmp_path, "old", {"run": ["a"], "web": [0.5], "wiki": [0.5]}, {"run": ["a"], "t": [1.5]}
    )
    ratios = {"run": ["a", "b"], "web": [0.2, 0.1], "wiki": [0.3, 0.1], "code": [0.5, 0.8]}
    new = two_files(tmp_path, "new", ratios, {"run": ["b", "a"], "t": [1.25, 1.0]})
    found = together(plan, read_swarm(*old, OLD), read_swarm(*new, plan.centred))
    assert found.ids == ["old-a", "a", "b"]
    assert found.names == ["web", "wiki", "code"]
    assert found.gone == ()
    assert found.ratios == pytest.approx(
        np.array([[0.5, 0.5, 0], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
    )
    assert found.metrics["t"].tolist() == [1.5, 1.0, 1.25]  # by name, not by line


@pytest.mark.parametrize(
    ("ratios", "metrics", "message"),
    [
        ({"run": ["a"], "web": [1]}, {"name": ["a"], "t": [1]}, "no id column in both"),
        ({"run": ["a"], "web": [1]}, {"run": ["b"], "t": [1]}, "no run is in both"),
        ({"run": ["a"], "book": [1]}, {"run": ["a"], "t": [1]}, "unknown source 'book'"),
        ({"run": ["a", "a"], "web": [1, 1]}, {"run": ["a"], "t": [1]}, "a second row for run 'a'"),
        ({"run": ["a"], "web": [1]}, {"run": ["a"], "u": [1]}, "no metric in common"),
    ],
)
def test_mistakes_are_named(
    plan: Reuse, tmp_path: Path, ratios: dict, metrics: dict, message: str
) -> None:
    new = two_files(
        tmp_path, "new", {"run": ["x"], "existing": [0.5], "code": [0.5]}, {"run": ["x"], "t": [1]}
    )
    with pytest.raises(MixlawError, match=message):
        together(
            plan,
            read_swarm(*two_files(tmp_path, "old", ratios, metrics), OLD),
            read_swarm(*new, plan.reduced),
        )
