"""Plans and detected transitions as a person reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from olmo_mixlaw.advice.knowledge.detect import Detected, Transition, row
from olmo_mixlaw.advice.knowledge.horizon import FORMS
from olmo_mixlaw.advice.knowledge.plan import KnowledgePlan
from olmo_mixlaw.models.ladder import short

# No model has so many parameters.
_MOST = 1e13


def size_text(value: float) -> str:
    """A size as ladders name it; `no size` where none is enough."""
    return short(value) if np.isfinite(value) and value < _MOST else "no size"


def plan_text(found: KnowledgePlan) -> str:
    """The answer, what it would take, what else would do, and how far to trust it."""
    facts, need, size = found.facts, found.ratio_needed, found.size_needed
    best, low, high = found.optimum_ratio
    between = f" ({low:.3g} - {high:.3g})" if np.isfinite(low) else ""
    climb = found.barrier.quantile(np.array([0.05, 0.95]))
    share = found.subsampling
    lines = [
        f"{found.verdict}: {found.accuracy:.0%} or more of {facts.n:,.0f} facts are known with "
        f"probability {found.probability:.2f}",
        "",
        f"{facts.bits:.4g} bits and {facts.tokens:.4g} tokens a fact, {found.exposures:,.0f} "
        f"exposures each, {facts.bits_in_all / found.n_params:.3g} bits a parameter",
        f"worth its capacity from a ratio of {best:.3g}{between}: by the rule, a model that knows "
        f"the facts keeps {found.kept_if_known:.0%} of them at {found.ratio:g}",
    ]
    if found.barrier.count:
        lines.append(
            f"a cold start needs {climb[0]:.2g} to {climb[1]:.2g} times those odds "
            f"({found.barrier.source})"
        )
    lines += [
        f"ratio that it takes: {need['middle']:.3g} (90 %: {need['low']:.3g} - "
        f"{need['high']:.3g}); "
        + (
            f"{need['enough']:.3g} is enough with probability {found.sure:g}"
            if need["enough"] < 1 - 1e-9
            else f"none is enough with probability {found.sure:g}"
        ),
        f"size that it takes at {found.ratio:g}: {size_text(size['middle'])} (90 %: "
        f"{size_text(size['low'])} - {size_text(size['high'])}); {size_text(size['enough'])} is "
        f"enough with probability {found.sure:g}",
        f"leaving facts out: {share.rho:.0%} kept teaches {share.known:.2f} of all, against "
        f"{share.whole:.2f}" + ("" if share.helps else " (no gain)"),
        _mixing_text(found),
        "",
        f"nearest measured: {found.near.text()}",
        f"measured, most alike in worth, exposures and bits a parameter: {found.alike.text()}",
        f"web: {found.sources[0]}; storage: {found.sources[1]}",
        *(f"caution: {note}" for note in found.warnings),
    ]
    return "\n".join(lines)


def _mixing_text(found: KnowledgePlan) -> str:
    mix = found.mixing
    if mix.probability <= found.probability:
        return "compact mixing: no gain"
    return (
        f"compact mixing: {mix.tau:g} tokens of tuples for each of sentences gives probability "
        f"{mix.probability:.2f}" + ("" if mix.reached else " at best")
    )


def detect_text(found: Detected) -> str:
    """A verdict a series, with its evidence and what to add."""
    lines: list[str] = []
    for one in found.transitions:
        lines += _series_text(one)
    if found.time is not None:
        time = found.time
        a, b = time.constants[time.better]
        sure = "" if time.told_apart else ", which doesn't tell them apart"
        lines.append(
            f"time to learn: {FORMS[time.better]}, a {a:.4g}, b {b:.4g}, R2 "
            f"{time.r2[time.better]:.4f}; {time.evidence:.3g} times as probable as the other form"
            f"{sure}"
        )
    return "\n".join(lines)


def _series_text(one: Transition) -> list[str]:
    said = row(one)
    lines = [f"{one.series.text()}: {one.verdict} ({said['runs']} runs, {said['points']} values)"]
    for name in ("recall", "bits"):
        found: dict[str, Any] | None = said[name]
        if found is None:
            continue
        where = (
            f" at {found['at']:.4g} ({found['low']:.4g} - {found['high']:.4g})"
            if found["at"] is not None
            else ""
        )
        lines.append(
            f"  {name:6s} {found['kind']}{where}; sharp over smooth: "
            f"10^{found['log10_evidence']:.1f}"
        )
    lines += [f"  {note}" for note in one.add]
    return lines
