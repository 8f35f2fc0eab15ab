"""What is to be learned: so many facts, of so many bits, shown in so many tokens.

All that the theory asks of a set of facts are these three numbers. They are counted from a
dataset's URI, or given by hand, with the published biographies standing in for what isn't said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from olmo_mixlaw.datasets import load_tokenizer, open_dataset
from olmo_mixlaw.datasets.counting import tokens_a_document
from olmo_mixlaw.datasets.uri import SCHEME, dataset_name, is_uri, take
from olmo_mixlaw.errors import ConfigError, DataError
from olmo_mixlaw.schema import parse_count

# A biography of arXiv 2505.18091: five attributes, about 100 tokens with a vocabulary of 50,000.
BIOGRAPHY_BITS, BIOGRAPHY_TOKENS, BIOGRAPHY_ANSWERS = 45.59, 100.0, 5
# A biography as a bare tuple, over the same in sentences: 39.3 of 79.3 tokens of our dataset with
# OLMo's tokenizer (`data ledger`).
TUPLE_PART = 0.495
TOKENIZER = "tokenizers/allenai_gpt-neox-olmo-dolma-v1_5.json"
_MEASURED = 500


@dataclass(frozen=True)
class Facts:
    """`n` facts of `bits` bits, each shown in `tokens` tokens, equally often.

    A fact is whatever comes in one exposure (a biography with all its attributes); `answers` is
    how many answers it has when it is asked about, `tuple_tokens` its length as a bare tuple.
    Raises `ConfigError` for numbers that aren't positive.
    """

    n: float
    bits: float = BIOGRAPHY_BITS
    tokens: float = BIOGRAPHY_TOKENS
    tuple_tokens: float | None = None
    answers: int = BIOGRAPHY_ANSWERS

    def __post_init__(self) -> None:
        for key in ("n", "bits", "tokens", "tuple_tokens"):
            value = getattr(self, key)
            if value is not None and not 0 < value < np.inf:
                raise ConfigError(f"facts: {key}: must be positive and finite, found {value:g}")

    @property
    def bits_in_all(self) -> float:
        """H_tot, the entropy of all facts together, in bits."""
        return self.n * self.bits

    @property
    def tokens_a_pass(self) -> float:
        """Tokens that show every fact once."""
        return self.n * self.tokens

    @property
    def short_tokens(self) -> float:
        """Tokens of a fact as a tuple: as given, or in a biography's proportion."""
        return self.tokens * TUPLE_PART if self.tuple_tokens is None else self.tuple_tokens

    def exposures(self, ratio: Any, n_tokens: Any) -> Any:
        """How often each fact is seen: E = r S / (n t), S tokens in all."""
        return ratio * n_tokens / self.tokens_a_pass

    def subsampled(self, rho: float) -> Facts:
        """A share `rho` of the facts: each comes 1 / rho times as often.

        Raises `ConfigError` unless 0 < rho <= 1.
        """
        if not 0 < rho <= 1:
            raise ConfigError(f"rho: a share above 0 and at most 1, found {rho:g}")
        return replace(self, n=rho * self.n)

    def compacted(self, tau: float) -> Facts:
        """With `tau` tokens of tuples for each of sentences, as if exposures were shorter.

        A fact comes (1 + tau t_doc / t_tuple) / (1 + tau) times as often (arXiv 2505.18091,
        section 6). Raises `ConfigError` for a negative tau.
        """
        if not 0 <= tau < np.inf:
            raise ConfigError(f"tau: must be finite and not negative, found {tau:g}")
        more = (1 + tau * self.tokens / self.short_tokens) / (1 + tau)
        return replace(self, tokens=self.tokens / more, tuple_tokens=self.short_tokens / more)


def facts_of(
    given: str,
    bits: float | None = None,
    tokens: float | None = None,
    tuple_tokens: float | None = None,
    tokenizer: str = TOKENIZER,
) -> Facts:
    """The facts that a count (`300k`) or a dataset's URI (`biography?n=300000`) stands for.

    What is given by hand goes before what is counted; a count alone takes the published
    biography's 45.59 bits and 100 tokens. Raises `ConfigError`, and `DataError` for a dataset that
    holds no facts.
    """
    by_hand: dict[str, Any] = {
        key: value
        for key, value in {"bits": bits, "tokens": tokens, "tuple_tokens": tuple_tokens}.items()
        if value is not None
    }
    if not given or given[0].isdigit() or given[0] in ".+-":
        return Facts(parse_count(given, "facts"), **by_hand)
    uri = given if is_uri(given) else SCHEME + given
    dataset: Any = open_dataset(uri, where="facts")
    bits_each = getattr(dataset, "bits_a_person", None) or getattr(dataset, "bits_an_entity", None)
    if not bits_each:
        raise DataError(
            f"facts: {uri}: a {dataset_name(uri)} dataset holds no facts that could be counted; "
            "name a biography or a table, or give their number, --bits and --tokens-each"
        )
    asked = getattr(dataset, "attributes", None) or getattr(dataset, "fields", None) or (0,)
    counted: dict[str, Any] = {"bits": bits_each}
    if len({"tokens", "tuple_tokens"} & set(by_hand)) < 2:
        loaded = load_tokenizer(tokenizer, "facts: tokenizer")
        counted["tokens"] = tokens_a_document(dataset, loaded, _MEASURED)
        short: Any = open_dataset(_as_tuples(uri), where="facts")
        counted["tuple_tokens"] = tokens_a_document(short, loaded, _MEASURED)
    return Facts(dataset.exposure.n_kept, answers=len(asked), **{**counted, **by_hand})


def _as_tuples(uri: str) -> str:
    """The URI of the same facts, all of them as tuples."""
    rest = take(uri, "compact")[0]
    return f"{rest}{'&' if '?' in rest else '?'}compact=1"


def parts_of_power_law(groups: int, exponent: float) -> np.ndarray:
    """What part (G,) of all exposures each group of facts gets where the k-th has ~ k^-exponent."""
    weights = np.arange(1, groups + 1, dtype=float) ** -exponent
    return weights / weights.sum()
