"""How often a run sees its sources, whether the swarm repeats as its target will, and how it could.

A swarm of short runs never repeats what a long run must, so it finds sources better than they will
be. Cut to the share of the tokens that its runs are of the target's, each source is seen as often
as there (arXiv 2606.07597: repeats matched at a sixteenth of the tokens find the mixture).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.repetition import REPEATS, available_of, epochs_of
from olmo_mixlaw.runs import Design, RunTable
from olmo_mixlaw.runs.table import design_of

# Epochs that differ by less than this factor are as good as matched, and fewer than these, of
# which nearly all count as fresh, needn't match.
SAME_EPOCHS, FEW_EPOCHS = 1.5, 1.5


@dataclass(frozen=True)
class Matching:
    """The repeats of a target's mixture beside those of the runs of a swarm.

    `target` and `swarm` (K,) are epochs: the target's, and the most that a run of the swarm saw
    of each domain, for a ratio near the target's or larger where it has one. `cut` (K,) are the
    tokens that each source should have in a run of the swarm, infinite where it has no end.
    `unmatched` are the domains that the swarm repeats too little or too much.
    """

    domains: list[str]
    ratios: np.ndarray
    target: np.ndarray
    swarm: np.ndarray
    cut: np.ndarray
    unmatched: tuple[str, ...]

    def text(self) -> str:
        """What to do, in a line a domain."""
        if not self.unmatched:
            return "the runs repeat their sources as the target will"
        lines = []
        for k, name in enumerate(self.domains):
            if name in self.unmatched:
                lines.append(
                    f"{name}: the target sees it {self.target[k]:.3g} times, a run of the swarm "
                    f"{self.swarm[k]:.3g} times; cut it to {self.cut[k]:.4g} tokens in a run"
                )
        return "\n".join(lines)


def matching(
    runs: Fit | RunTable | Design,
    ratios: np.ndarray,
    available: Mapping[str, float],
    n_tokens: float,
    swarm_tokens: float | None = None,
) -> Matching:
    """Whether runs repeat each domain as a target of these ratios (K,), tokens and budget will.

    `runs` is the swarm's table, or a fit to it. `swarm_tokens` is the budget of its runs (default:
    the largest of the table). Raises `FitError` for ratios or tokens that don't fit the domains.
    """
    if isinstance(runs, Fit):
        domains, seen = runs.domains, _seen(runs)
        budget = runs.scene.d_range[1]
    else:
        design = design_of(runs)
        domains, budget = design.domains, float(np.nanmax(np.append(design.n_tokens, -np.inf)))
        seen = most_epochs(design)
    budget = budget if swarm_tokens is None else swarm_tokens
    if not (0 < budget < np.inf and 0 < n_tokens < np.inf):
        raise FitError("matching repeats needs the tokens of the swarm's runs and of the target")
    tokens = available_of(available, domains)
    h = np.asarray(ratios, float)
    if h.shape != (len(domains),):
        raise FitError(f"ratios of {h.size} domains, the runs have {len(domains)}")
    target = epochs_of(h[None], np.array([n_tokens]), tokens)[0]
    apart = np.maximum(target, 1.0) / np.maximum(seen, 1.0)
    off = (apart > SAME_EPOCHS) & (target > FEW_EPOCHS)
    unmatched = tuple(name for name, bad in zip(domains, off, strict=True) if bad)
    return Matching(domains, h, target, seen, cuts(tokens, budget, n_tokens), unmatched)


def cuts(available: np.ndarray, swarm_tokens: float, n_tokens: float) -> np.ndarray:
    """Tokens (K,) to which sources are cut for runs to repeat as the target: U D_swarm / D."""
    return np.asarray(available * min(swarm_tokens / n_tokens, 1.0))


def most_epochs(design: Design) -> np.ndarray:
    """How often a run saw each domain at most, (K,); once where nobody says what domains have."""
    if design.available is None:
        return (design.ratios > 0).any(0).astype(float)
    return epochs_of(design.ratios, design.n_tokens, design.available).max(0)


def matched(available: Mapping[str, float], asked: float, n_tokens: float) -> dict[str, float]:
    """Tokens with which a run of `asked` tokens repeats as one of `n_tokens` does with these.

    A domain without any is left out: it can't be in the mixture, and so not repeat.
    """
    share = asked / n_tokens if np.isfinite(asked) else 1.0
    return {name: tokens * share for name, tokens in available.items() if tokens > 0}


def for_run(
    fit: Fit,
    n_tokens: float,
    available: Mapping[str, float] | None,
    run_tokens: float | None = None,
) -> Fit:
    """The fit, asked at `n_tokens` about a run of `run_tokens` (default: the same) that repeats.

    `available` are the tokens that its domains have; without, the fit is as it was.
    """
    if available is None:
        return fit
    asked = budget_of(fit, n_tokens)
    return fit.having(matched(available, asked, asked if run_tokens is None else run_tokens))


def budget_of(fit: Fit, n_tokens: float) -> float:
    """The budget asked for, or the only one of the table."""
    return n_tokens if fit.scene.has_d or np.isfinite(n_tokens) else fit.scene.d_range[1]


def epochs_at(fit: Fit, ratios: np.ndarray, n_tokens: float) -> np.ndarray | None:
    """How often a run sees each domain, (K,); None where nobody said what they have."""
    if fit.repetition is None or fit.repetition.available is None:
        return None
    return epochs_of(ratios[None], np.array([budget_of(fit, n_tokens)]), fit.repetition.available)[
        0
    ]


def beyond_seen(fit: Fit, epochs: np.ndarray | None) -> list[str]:
    """A caution on domains that would repeat more often than in any run of the table."""
    if epochs is None:
        return []
    seen = _seen(fit)
    far = [k for k in np.argsort(-epochs) if epochs[k] > max(REPEATS, SAME_EPOCHS * seen[k])]
    if not far:
        return []
    some = ", ".join(f"{fit.domains[k]} {epochs[k]:.3g} times" for k in far)
    most = (
        "no run of the table repeats"
        if seen.max() <= REPEATS
        else (
            "no run of the table saw them so often (at most "
            + ", ".join(f"{fit.domains[k]} {max(seen[k], 0.0):.3g}" for k in far)
            + ")"
        )
    )
    return [f"the run would see {some}: {most}, so what such repeats are worth is not measured"]


def _seen(fit: Fit) -> np.ndarray:
    """How often a run of the fit's table saw each domain at most, (K,)."""
    if fit.repetition is None or fit.repetition.epochs is None:
        return np.ones(len(fit.domains))
    return fit.repetition.epochs
