"""How well is the loss of larger models foreseen, family by family: Chinchilla's law and the level.

Every family is a set of tables of one mixture, fitted on their smaller sizes and scored on the
larger. `python benchmarks/level_families.py` prints a row a table and saves them.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import record
from answers import answer_for
from splits import NAN, flops, mean_of, reach, scale_groups, short
from tables import CORPORA, find, joined, load_mixtures, load_sizes, one_mixture, read

from olmo_mixlaw.advice.two_step import final_design
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.adjusted import law_alone
from olmo_mixlaw.laws.level import LogLaw
from olmo_mixlaw.laws.leveling import level_of
from olmo_mixlaw.laws.skeleton import PRIOR
from olmo_mixlaw.runs import Design

# The last checkpoints of a run, whose mean is its loss.
WINDOW = 5
# Runs of which a corpus needs so many to be a table of its own.
LEAST_RUNS = 6
# A family's own skeleton is fitted under a prior this much wider; the prior of a bank without a
# family is the others' spread times this, and at least that.
BANK_SPREAD, FEW, LEAST_SPREAD = 2.0, 1.8, 0.2
LEFT_OUT = "level, family left out"
LAWS = ("no_mixture", "level", LEFT_OUT)

# The skeleton's parameters of each family.
Bank = dict[str, np.ndarray]


@dataclass(frozen=True)
class Member:
    """One table of a family; its scale is size, or compute where runs lie on lines of it."""

    name: str
    design: Design
    by_compute: bool = False
    has_embeddings: bool = True

    def cut(self) -> tuple[Design, Design, str]:
        """The runs of the smaller scales, those of the larger, and where the cut is.

        The larger are the upper half of the sizes by number, at least one; compute is cut where a
        third of the runs are above.
        """
        design = self.design
        scale = 6 * design.n_params * design.n_tokens if self.by_compute else design.n_params
        group = scale_groups(scale)
        first = (group.max() + 1) // 2 + (group.max() + 1) % 2
        if self.by_compute:
            first = group[np.argsort(group)[2 * len(group) // 3]]
        small = group < max(first, 1)
        say = flops if self.by_compute else short
        where = f"<= {say(scale[small].max())} -> {say(scale.max())}"
        return design.take(small), design.take(~small), where


def families() -> dict[str, list[Member]]:
    """The families that are here, each a list of its tables."""
    found: dict[str, list[Member]] = {}
    for name, members in (
        ("Gemstones", _gemstones),
        ("Kempner", lambda: _corpora("p9_kempner", by_compute=True)),
        ("Gadre", lambda: _corpora("p8_gadre")),
        ("OLMo ladder", _ladder),
        ("Marin isoFLOPs", _marin),
        ("SlimPajama means", lambda: _means("p3_dmsl7_xscale", "p3x_dev_680M")),
        ("RedPajama means", lambda: _means("p4_ye_redpajama")),
    ):
        some = list(members())
        if some:
            found[name] = some
    return found


def _gemstones() -> Iterator[Member]:
    if find("p14_gemstones"):
        yield Member("all", load_sizes("p14_gemstones"))


def _corpora(stem: str, by_compute: bool = False) -> Iterator[Member]:
    """The losses of each training corpus."""
    if not find(stem):
        return
    frame = read(stem)
    frame = frame[frame["kind"] == "loss"]
    for corpus, rows in frame.groupby("train_data"):
        if rows["run_id"].nunique() >= LEAST_RUNS:
            yield Member(str(corpus), one_mixture(rows, "task", "value"), by_compute)


def _ladder() -> Iterator[Member]:
    """The final C4 loss, and the bits a byte of its tasks."""
    if not find("p6_olmo_ladder"):
        return
    frame = read("p6_olmo_ladder").sort_values(["task", "run_id", "D"])
    one = frame[frame["task"] == frame["task"].iloc[0]].assign(
        task="c4", bpb=lambda f: f["c4_loss"]
    )
    yield Member("C4 loss", final_design(one.dropna(subset=["bpb"]), ["c4"], WINDOW))
    tasks = list(dict.fromkeys(frame["task"]))
    yield Member("bits a byte", final_design(frame, tasks, WINDOW))


def _marin() -> Iterator[Member]:
    if find("p19_marin_isoflops"):
        for corpus in CORPORA:
            yield Member(corpus, load_sizes("p19_marin_isoflops", corpus), by_compute=True)


def _means(stem: str, later: str = "") -> Iterator[Member]:
    """The mean over mixtures of a table at each size and budget that all its mixtures have."""
    if not find(stem):
        return
    design = load_mixtures(stem)
    if later and find(later):
        design = joined(design, load_mixtures(later))
    rows = pd.DataFrame(np.log(design.losses), columns=design.targets)
    cells = rows.groupby([design.n_params, design.n_tokens])
    means = np.exp(cells.mean())
    n, d = (means.index.get_level_values(i).to_numpy(float) for i in (0, 1))
    names = [f"cell{i}" for i in range(len(means))]
    ones = np.ones((len(means), 1))
    plain = Design(names, ["all"], design.targets, ones, n, n, d, means.to_numpy(float))
    yield Member("means", plain, has_embeddings=False)


def bank_of(found: dict[str, list[Member]]) -> Bank:
    """The skeleton's parameters (5,), as logarithms, of each family: medians of whole tables.

    Fitted to all runs of a table under a prior of twice the spread.
    """
    middle, spread = PRIOR
    bank = {}
    for family, members in found.items():
        each = []
        for member in members:
            level = level_of(
                member.design,
                _flat(member.design),
                vocabulary=0.0 if member.has_embeddings else None,
                prior=(middle, BANK_SPREAD * spread),
            )
            assert level is not None
            skeleton = level.skeleton
            each.append(np.median((skeleton.weight[:, :, None] * skeleton.theta).sum(0), axis=0))
        bank[family] = np.mean(each, axis=0)
    return bank


def prior_without(bank: Bank, family: str) -> tuple[np.ndarray, np.ndarray]:
    """The prior of all families but one: their mean, and their spread widened for so few."""
    others = np.array([theta for name, theta in bank.items() if name != family])
    return others.mean(0), np.maximum(FEW * others.std(0, ddof=1), LEAST_SPREAD)


def _flat(design: Design) -> LogLaw:
    """A law that knows nothing: the skeleton alone stands."""
    return lambda ratios, n, d: np.zeros((len(ratios), len(design.targets)))


def predict_with(
    member: Member, design: Design, test: Design, prior: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Losses (R, T) of the test runs and their 90 % intervals: Chinchilla's law, or its level."""
    embedded = member.has_embeddings
    answer = answer_for(design, "no_mixture", level=False, has_embeddings=embedded)
    if prior is not None:
        law, vocabulary = law_alone(answer.fit), 0.0 if embedded else None
        level = level_of(design, law, vocabulary=vocabulary, prior=prior)
        answer = replace(answer, fit=replace(answer.fit, level=level))
    rows = (test.ratios, test.n_params, test.n_tokens)
    return answer.losses(*rows), answer.ends(*rows)


def row_of(family: str, member: Member, law: str, bank: Bank) -> dict[str, object]:
    """The figures of one table of a family. Raises `FitError`."""
    design, test, where = member.cut()
    prior = PRIOR if law == "level" else None
    if law == LEFT_OUT:
        prior = prior_without(bank, family)
    start = time.process_time()
    guess, ends = predict_with(member, design, test, prior)
    seconds = time.process_time() - start
    error, seen = guess / test.losses - 1, np.isfinite(test.losses)
    inside = NAN
    if ends is not None:
        held = (test.losses >= ends[0]) & (test.losses <= ends[1])
        inside = mean_of(np.where(np.isfinite(ends[0]), held, NAN)[seen])
    return {
        "family": family,
        "table": member.name,
        "law": law,
        "step": where,
        "losses": int(seen.sum()),
        "mre": 100 * float(np.nanmean(np.abs(error))),
        "bias": 100 * float(np.nanmean(error)),
        "coverage": inside,
        "reach": float(np.nanmedian(reach(design, test))),
        "cpu_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-level", action="store_true", help="Chinchilla's law alone")
    options = parser.parse_args()
    rows, found = [], families()
    bank = bank_of(found)
    laws = LAWS[:1] if options.no_level else LAWS
    for family, members in found.items():
        for member in members:
            for law in laws:
                try:
                    rows.append(row_of(family, member, law, bank))
                except FitError as error:
                    print(f"{family}: {member.name}: {error}", flush=True)
    frame = pd.DataFrame(rows)
    print(frame.round(2).to_string(index=False))
    mean = frame.groupby(["family", "law"], sort=False)[["mre", "bias", "coverage"]].mean()
    print(f"\nmean over the tables of a family\n{mean.round(2).to_string()}")
    print("\nmean over the families")
    print(mean.groupby("law", sort=False).mean().round(2).to_string())
    shown = {name: np.exp(theta).round(4).tolist() for name, theta in bank.items()}
    record.save("level_families", rows, bank=shown)


if __name__ == "__main__":
    main()
