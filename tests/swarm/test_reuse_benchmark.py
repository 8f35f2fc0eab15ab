"""The benchmark on reuse: its changes are what they are called, and its spaces are of one truth."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import reuse
import reuse_real

from olmo_mixlaw.swarm.reuse import plan_reuse

KINDS = {
    "add 15 languages": {"added"},
    "add 4 sources": {"added"},
    "revise one": {"revised"},
    "remove one": {"removed"},
    "split one in 21": {"split"},
    "several at once": {"added", "split", "removed"},
}


@pytest.fixture(scope="module")
def known() -> pd.DataFrame:
    return reuse_real.sources()


def test_the_virtual_source_is_43_of_the_full_swarms_sources(known: pd.DataFrame) -> None:
    assert len(known) == 64
    names = ["existing", "s2pdfv1:health"]
    inside = reuse_real.within(np.array([[0.7, 0.3]]), names, known, list(known.index))
    assert inside.sum() == pytest.approx(1)
    assert (inside > 0).sum() == 44
    assert inside[0, list(known.index).index("s2pdf:health")] == 0.3


def test_each_change_is_what_it_is_called(known: pd.DataFrame) -> None:
    domains = list(known.index)
    found = {}
    for change in reuse.changes(known, domains):
        for space in (change.old, change.new):
            assert space.blend.shape == (len(space.tree.leaves), len(domains))
            assert space.blend.sum(1) == pytest.approx(np.ones(len(space.blend)))
        count = len(change.old.tree.leaves)
        mixture = dict.fromkeys(change.old.tree.leaf_names, 1 / count)
        plan = plan_reuse(mixture, change.old.tree, change.new.tree, free=change.free)
        found[change.name] = set(plan.changes.values()) - {"freed"}
        # What is kept has the same truth before and after.
        before = np.full(count, 1 / count) @ change.old.blend
        after = plan.expand(np.array(plan.carried)) @ change.new.blend
        if found[change.name] <= {"added", "split"}:
            assert after == pytest.approx(before)
    assert found == KINDS
