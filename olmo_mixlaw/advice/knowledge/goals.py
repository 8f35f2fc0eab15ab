"""What is to be learned, as a goal of a mixture: `bio>=.9` becomes the least ratio of a domain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from olmo_mixlaw.advice.knowledge.facts import facts_of
from olmo_mixlaw.advice.knowledge.outlook import least_ratio
from olmo_mixlaw.errors import ConfigError


def learning_ratios(
    learn: Sequence[str], facts: Sequence[str], n_params: float, n_tokens: float, sure: float = 0.9
) -> dict[str, float]:
    """The least ratio of each domain that keeps its goal with probability `sure`.

    `learn` has goals `DOMAIN>=PART`, `facts` what the domains hold, `DOMAIN=FACTS` (a number or a
    dataset). Raises `ConfigError` naming the option.
    """
    held = dict(_halves(text, "=", "--facts", "DOMAIN=FACTS") for text in facts)
    wanted = dict(_halves(text, ">=", "--learn", "DOMAIN>=PART") for text in learn)
    for domain in held:
        if domain not in wanted:
            raise ConfigError(
                f"--facts: needs --learn {domain}>=PART, how much of them is to be learned"
            )
    if wanted and not (np.isfinite(n_params) and np.isfinite(n_tokens)):
        raise ConfigError("--learn: needs --n-params and --n-tokens, the run that is to learn")
    return {
        domain: _least(domain, text, held, (n_params, n_tokens, sure))
        for domain, text in wanted.items()
    }


def _least(domain: str, text: str, facts: dict[str, str], run: tuple[float, float, float]) -> float:
    if domain not in facts:
        raise ConfigError(f"--learn: needs --facts {domain}=FACTS, what there is to learn")
    try:
        part = float(text)
    except ValueError:
        raise ConfigError(f"--learn: {domain}>={text}: {text!r} is not a number") from None
    n_params, n_tokens, sure = run
    try:
        return least_ratio(facts_of(facts[domain]), n_params, n_tokens, part, sure)
    except ConfigError as error:
        raise ConfigError(f"--learn: {domain}>={text}: {error}") from None


def _halves(text: str, sign: str, option: str, form: str) -> tuple[str, str]:
    left, found, right = text.partition(sign)
    if not (left and found and right):
        raise ConfigError(f"{option}: expected {form}, found {text!r}")
    return left, right
