"""Limits: bounds of sources, of groups and of repetition together, and what none can meet."""

from __future__ import annotations

import numpy as np
import pytest
from source_trees import flat, nested

from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.swarm.limits import limits_of
from olmo_mixlaw.swarm.sources import Source, SourceTree


def test_a_cap_by_repetition_is_epochs_times_tokens_over_the_target() -> None:
    limits = limits_of(flat([100e9, 20e9, 5e9]), max_epochs=4, target_tokens=200e9)
    np.testing.assert_allclose(limits.high, [1.0, 0.4, 0.1])


def test_the_epochs_nearest_to_a_leaf_count() -> None:
    tree = SourceTree(
        (
            Source("web", most_epochs=2, parts=(Source("a", 10.0), Source("b", 10.0, (), None, 8))),
            Source("code", 10.0),
            Source("rest", 1000.0),
        ),
        "list.yaml",
    )
    limits = limits_of(tree, max_epochs=1, target_tokens=100)
    np.testing.assert_allclose(limits.high, [0.2, 0.8, 0.1, 1.0])


def test_bounds_inside_a_pinned_source_bound_the_whole_of_it() -> None:
    games = Source(
        "games", parts=(Source("high", 1.0, most=0.1), Source("low", 3.0, least=0.3)), pinned=True
    )
    limits = limits_of(SourceTree((games, Source("code", 4.0)), "list.yaml"))
    np.testing.assert_allclose(limits.low, [0.4, 0.0])
    np.testing.assert_allclose(limits.high, [0.4, 1.0])


def test_the_tighter_of_two_bounds_holds() -> None:
    tree = SourceTree((Source("a", 1.0, least=0.1, most=0.5), Source("b", 1.0)), "list.yaml")
    limits = limits_of(tree, at_least={"a": 0.2}, at_most={"a": 0.9, "b": 0.7})
    np.testing.assert_allclose(limits.low, [0.2, 0.0])
    np.testing.assert_allclose(limits.high, [0.5, 0.7])


def test_a_bound_on_a_source_with_parts_holds_their_sum() -> None:
    limits = limits_of(nested())
    (group,) = limits.whole.inner
    assert (list(group.units), group.low, group.high) == ([0, 1], 0.0, 0.8)
    assert list(limits.broken(np.array([[0.5, 0.3, 0.1, 0.1], [0.5, 0.4, 0.1, 0.0]]))) == [
        False,
        True,
    ]
    inner = Source("in", parts=(Source("a", 1.0), Source("b", 1.0)), most=0.2)
    outer = Source("out", parts=(inner, Source("c", 1.0)), least=0.1, most=0.5)
    whole = limits_of(SourceTree((outer, Source("d", 1.0)), "list.yaml")).whole
    assert [list(group.units) for group in whole.all()] == [[0, 1, 2, 3], [0, 1, 2], [0, 1]]


def test_what_is_always_below_the_least_ratio_is_never_there() -> None:
    limits = limits_of(flat([100.0, 0.1]), max_epochs=1, target_tokens=100, least_ratio=0.002)
    assert list(limits.high) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"at_most": {"s0": 0.3, "s1": 0.2, "s2": 0.1}}, "ceilings .* they sum to 0.6, below 1"),
        ({"at_least": {"s0": 0.7, "s1": 0.6}}, "floors .* they sum to 1.3, above 1"),
        ({"max_epochs": 1, "target_tokens": 50}, "ceilings .* they sum to 0.6, below 1"),
        ({"max_epochs": 1}, "needs the tokens of the target run; give --target-tokens"),
        ({"at_least": {"s0": 0.5}, "at_most": {"s0": 0.4}}, "s0: no mixture meets its bounds"),
        ({"at_least": {"nothing": 0.5}}, "at-least: unknown source 'nothing'"),
        ({"at_most": {"s0": 1.5}}, "at-most s0: 1.5; a ratio lies between 0 and 1"),
        ({"keep": ["s9"]}, "keep: unknown source 's9'; did you mean"),
        ({"keep": ["s2"], "at_most": {"s2": 0.001}, "least_ratio": 0.01}, "s2: no mixture meets"),
        ({"least_ratio": 1.0}, "least-ratio: 1; expected 0 or more, and below 1"),
        ({"max_epochs": -1, "target_tokens": 50}, "max-epochs: -1; it must be above 0"),
    ],
)
def test_limits_that_no_mixture_meets_are_refused_with_their_sum(
    options: dict, problem: str
) -> None:
    with pytest.raises(MixlawError, match=problem):
        limits_of(flat([10.0, 10.0, 10.0]), **options)


def test_a_group_that_its_parts_can_t_fill_is_named() -> None:
    web = Source("web", parts=(Source("a", 1.0, most=0.1), Source("b", 1.0, most=0.1)), least=0.5)
    with pytest.raises(ConfigError, match=r"list.yaml: web: .* they sum to 0.2, below 0.5"):
        limits_of(SourceTree((web, Source("c", 1.0)), "list.yaml"))


def test_a_cap_on_uncounted_tokens_is_refused() -> None:
    tree = SourceTree((Source("a", paths=("s3://x/*.npy",)), Source("b", 1.0)), "list.yaml")
    with pytest.raises(ConfigError, match=r"list.yaml: a: most_epochs 2 needs its tokens"):
        limits_of(tree, max_epochs=2, target_tokens=10)
