"""Trees of sources: units, leaves, priors, pinned parts, and what contradicts itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from source_trees import flat, nested

from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.swarm.sources import Source, SourceTree


def test_units_and_leaves_have_full_names() -> None:
    tree = nested()
    assert tree.names == ("web:science", "web:games", "code", "wiki")
    assert tree.leaf_names == ("web:science", "web:games:high", "web:games:low", "code", "wiki")


def test_the_prior_is_the_share_of_tokens() -> None:
    np.testing.assert_allclose(nested().prior, [0.3, 0.2, 0.4, 0.1])
    np.testing.assert_allclose(flat([3.0, 1.0]).prior, [0.75, 0.25])


def test_weights_replace_the_tokens_of_outermost_sources_only() -> None:
    tree = SourceTree(nested().sources, "list.yaml", {"web": 1, "code": 2, "wiki": 1})
    np.testing.assert_allclose(tree.prior, [0.15, 0.1, 0.5, 0.25])


def test_pinned_parts_expand_by_tokens_or_by_their_inner_ratios() -> None:
    ratios = np.array([[0.4, 0.4, 0.2, 0.0]])
    np.testing.assert_allclose(nested().expand(ratios), [[0.4, 0.1, 0.3, 0.2, 0.0]])
    parts = (Source("a"), Source("b", parts=(Source("x", 1.0), Source("y", 1.0))))
    pinned = Source("web", parts=parts, pinned=True, inner=(0.2, 0.8))
    tree = SourceTree((pinned, Source("code", 1.0)), "list.yaml", {"web": 1, "code": 1})
    np.testing.assert_allclose(tree.expand(np.array([0.5, 0.5])), [0.1, 0.2, 0.2, 0.5])
    np.testing.assert_allclose(tree.prior, [0.5, 0.5])


@pytest.mark.parametrize(
    ("sources", "weights", "problem"),
    [
        ((), None, "list.yaml: sources: at least one is needed"),
        ((Source("a", 1.0), Source("a", 2.0)), None, "a stands there twice"),
        ((Source("a", 0.0),), None, "sources.a.tokens: 0; it must be above 0"),
        ((Source("a", 1.0, least=0.5, most=0.4),), None, "sources.a: least 0.5, most 0.4"),
        ((Source("a", 1.0, most_epochs=0.0),), None, "sources.a.most_epochs: 0"),
        ((Source("a", 1.0, pinned=True),), None, "sources.a.pinned: it has no parts"),
        ((Source("a", 1.0, parts=(Source("b", 1.0),)),), None, "sources.a.tokens: it has parts"),
        (
            (Source("a", parts=(Source("b", 1.0), Source("c", 1.0)), pinned=True, inner=(0.5,)),),
            None,
            "sources.a.inner: 1 ratios for 2 parts",
        ),
        (
            (Source("a", parts=(Source("b", 1.0),), pinned=True, inner=(0.5,)),),
            None,
            "sources.a.inner: the ratios sum to 0.5, not 1",
        ),
        ((Source("a", 1.0), Source("b", 1.0)), {"a": 1.0}, "prior: leaves out b"),
        ((Source("a", 1.0),), {"b": 1.0}, "prior: unknown source 'b'"),
        ((Source("a", 1.0),), {"a": 0.0}, "prior.a: 0; it must be above 0"),
    ],
)
def test_sources_that_contradict_themselves_are_refused(
    sources: tuple, weights: dict | None, problem: str
) -> None:
    with pytest.raises(MixlawError, match=problem):
        SourceTree(sources, "list.yaml", weights)


@pytest.mark.parametrize(
    ("tokens", "problem"), [(math.nan, "nobody counted its tokens"), (math.inf, "it has no end")]
)
def test_a_prior_that_leaves_a_source_out_is_refused(tokens: float, problem: str) -> None:
    tree = SourceTree((Source("a", tokens), Source("b", 1.0)), "list.yaml")
    with pytest.raises(ConfigError, match=f"list.yaml: a: the prior leaves it out: {problem}"):
        _ = tree.prior
