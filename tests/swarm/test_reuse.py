"""Reuse: what is kept, what is searched, and the whole mixture that follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.swarm.config import read_sources
from olmo_mixlaw.swarm.draws import Draw, draw
from olmo_mixlaw.swarm.limits import limits_of
from olmo_mixlaw.swarm.listed import read_mixture, write_mixture, write_sources
from olmo_mixlaw.swarm.reuse import interacting, plan_reuse
from olmo_mixlaw.swarm.sources import Source, SourceTree

OLD = {"web:science": 0.3, "web:games": 0.1, "wiki": 0.2, "pages": 0.4}


def tree(*sources: Source) -> SourceTree:
    return SourceTree(sources, "list.yaml")


def web(**parts: float) -> Source:
    return Source("web", parts=tuple(Source(name, tokens) for name, tokens in parts.items()))


WEB = web(science=6e9, games=4e9)
WIKI, PAGES = Source("wiki", 2e9), Source("pages", 8e9)
OLD_TREE = tree(WEB, WIKI, PAGES)


def test_what_is_unchanged_becomes_one_source_at_its_old_ratios() -> None:
    plan = plan_reuse(OLD, OLD_TREE, tree(WEB, WIKI, PAGES, Source("code", 5e9)))
    assert plan.changes == {"code": "added"}
    assert plan.units == ("existing", "code")
    assert dict(zip(plan.kept, plan.inner, strict=True)) == pytest.approx(OLD)
    assert (plan.runs, plan.full_runs) == (9, 18)  # 3 (F + 1) and 3 (K + 1)
    assert plan.reduced.prior == pytest.approx([0.75, 0.25])
    assert plan.mixture() == pytest.approx({**OLD, "code": 0.0})
    expected = {**{name: 0.75 * ratio for name, ratio in OLD.items()}, "code": 0.25}
    assert plan.mixture({"existing": 0.75, "code": 0.25}) == pytest.approx(expected)


def test_what_is_added_shares_a_quarter_of_the_prior_and_small_ones_vary_too() -> None:
    few, many = Source("code", 1e9), Source("math", 16e9)
    plan = plan_reuse(OLD, OLD_TREE, tree(WEB, WIKI, PAGES, few, many))
    assert plan.reduced.prior == pytest.approx([0.75, 0.05, 0.2])  # by roots of their tokens


@pytest.mark.parametrize(("before", "searched"), [(0.4, 0.4), (0.1, 0.25), (0.0, 0.25)])
def test_what_changed_is_searched_about_its_old_ratio_or_wider(
    before: float, searched: float
) -> None:
    old = {"web:science": 0.5 - before, "web:games": 0.25, "wiki": 0.25, "pages": before}
    plan = plan_reuse(old, OLD_TREE, tree(WEB, WIKI, replace(PAGES, tokens=7e9)))
    assert plan.reduced.prior == pytest.approx([1 - searched, searched])
    assert plan.mixture() == pytest.approx(old)


def test_a_revised_source_is_searched_about_its_old_ratio() -> None:
    plan = plan_reuse(OLD, OLD_TREE, tree(WEB, WIKI, replace(PAGES, tokens=7e9)))
    assert plan.changes == {"pages": "revised"}
    assert plan.reduced.prior == pytest.approx([0.6, 0.4])
    assert plan.inner == pytest.approx((0.5, 1 / 6, 1 / 3))


def test_other_files_make_a_revision_unless_it_is_said_otherwise() -> None:
    old = tree(WEB, WIKI, replace(PAGES, paths=("s3://b/v1",)))
    new = tree(WEB, WIKI, replace(PAGES, paths=("s3://b/v2",)))
    assert plan_reuse(OLD, old, new).changes == {"pages": "revised"}
    with pytest.raises(ConfigError, match="nothing changed"):
        plan_reuse(OLD, old, new, unchanged=["pages"])
    forced = plan_reuse(OLD, OLD_TREE, OLD_TREE, revised=["web"])
    assert forced.changes == {"web:science": "revised", "web:games": "revised"}


def test_a_source_that_is_split_gives_its_ratio_to_its_parts() -> None:
    parts = (Source("law", 2e9), Source("health", 6e9))
    plan = plan_reuse(OLD, OLD_TREE, tree(WEB, WIKI, Source("pages", parts=parts)))
    assert plan.changes == {"pages:law": "split", "pages:health": "split"}
    assert plan.units == ("existing", "pages:law", "pages:health")
    assert plan.reduced.prior == pytest.approx([0.6, 0.1, 0.3])
    assert list(plan.mixture()) == ["web:science", "web:games", "wiki", "pages:law", "pages:health"]


def test_parts_that_are_merged_give_their_ratios_to_the_whole() -> None:
    plan = plan_reuse(OLD, OLD_TREE, tree(Source("web", 10e9), WIKI, PAGES))
    assert plan.changes == {"web": "merged"}
    assert plan.reduced.prior == pytest.approx([0.6, 0.4])


def test_a_removal_alone_needs_no_runs() -> None:
    plan = plan_reuse(OLD, OLD_TREE, tree(WEB, WIKI))
    assert plan.changes == {"pages": "removed"}
    assert plan.runs == 0
    assert plan.mixture() == pytest.approx({"web:science": 0.5, "web:games": 1 / 6, "wiki": 1 / 3})


def test_one_part_of_a_source_can_change_and_the_others_stay() -> None:
    plan = plan_reuse(OLD, OLD_TREE, tree(web(science=6e9, games=5e9), WIKI, PAGES))
    assert plan.units == ("existing", "web:games")
    assert plan.kept == ("web:science", "wiki", "pages")
    assert plan.mixture({"existing": 0.9, "web:games": 0.1}) == pytest.approx(OLD)


def test_several_changes_at_once() -> None:
    parts = (Source("law", 2e9), Source("health", 6e9))
    new = tree(replace(WEB, tokens=np.nan), Source("pages", parts=parts), Source("code", 5e9))
    plan = plan_reuse(OLD, OLD_TREE, new, free=["web:games"])
    assert plan.changes == {
        "web:games": "freed",
        "pages:law": "split",
        "pages:health": "split",
        "code": "added",
        "wiki": "removed",
    }
    assert plan.kept == ("web:science",)
    assert any("only web:science is kept" in note for note in plan.notes)


def test_pinned_sources_are_kept_while_they_are_pinned_as_they_were() -> None:
    pinned = replace(WEB, pinned=True, inner=(0.75, 0.25))
    old, code = tree(pinned, WIKI, PAGES), Source("code", 5e9)
    mixture = {"web": 0.4, "wiki": 0.2, "pages": 0.4}  # by unit: its leaves follow
    plan = plan_reuse(mixture, old, tree(pinned, WIKI, PAGES, code))
    assert plan.changes == {"code": "added"}
    assert dict(zip(plan.kept, plan.inner, strict=True)) == pytest.approx(OLD)
    other = replace(pinned, inner=(0.5, 0.5))
    again = plan_reuse(mixture, old, tree(other, WIKI, PAGES))
    assert again.changes == {"web": "revised"}
    assert again.units == ("existing", "web")


def test_caps_by_repetition_stay_those_of_the_leaves() -> None:
    new = tree(replace(WEB, most_epochs=2.0), replace(WIKI, most=0.1), PAGES, Source("code", 5e9))
    plan = plan_reuse(OLD, OLD_TREE, new)
    # games: 2 x 4e9 of 1e12 tokens at .1 of the virtual source; wiki: .1 at .2.
    bounds = limits_of(plan.reduced, target_tokens=1e12)
    assert bounds.high[0] == pytest.approx(min(0.012 / 0.3, 0.008 / 0.1, 0.1 / 0.2))
    bounded = tree(replace(WEB, most=0.5), WIKI, PAGES, Source("code", 5e9))
    assert plan_reuse(OLD, OLD_TREE, bounded).notes == ("web: its bounds as a whole are not kept",)


def test_the_reduced_list_is_read_as_it_was_written_and_drawn_from(tmp_path: Path) -> None:
    parts = (Source("law", 2e9, ("s3://b/law",)), Source("health", 6e9, most_epochs=4.0))
    new = tree(WEB, WIKI, Source("pages", parts=parts))
    plan = plan_reuse(OLD, OLD_TREE, new)
    path = write_sources(plan.reduced, tmp_path / "reduced.yaml", "a list\nof sources")
    again = read_sources([str(path)])
    assert again.leaves == plan.reduced.leaves
    assert again.names == plan.reduced.names
    assert again.expansion == pytest.approx(plan.reduced.expansion)
    assert again.prior == pytest.approx(plan.reduced.prior)
    limits = limits_of(again, target_tokens=1e12)
    drawn = draw(plan.runs, again.prior, limits, Draw(min_strength=1, max_strength=20))
    whole = plan.expand(drawn)
    assert whole.sum(1) == pytest.approx(np.ones(plan.runs))
    kept = whole[:, :3] / whole[:, :3].sum(1, keepdims=True)
    assert kept == pytest.approx(np.tile(plan.inner, (plan.runs, 1)))


def test_all_sources_can_be_drawn_about_the_old_mixture_instead(tmp_path: Path) -> None:
    pinned = replace(WEB, pinned=True, inner=(0.75, 0.25), most_epochs=3.0)
    old, rare = tree(pinned, WIKI, PAGES), {"web": 0.6, "wiki": 0.0, "pages": 0.4}
    plan = plan_reuse(rare, old, tree(pinned, WIKI, PAGES, Source("code", 5e9)))
    path = write_sources(plan.centred, tmp_path / "all.yaml")
    again = read_sources([str(path)])
    assert again.names == ("web", "wiki", "pages", "code")
    total = 1 + 1e-4
    assert again.prior == pytest.approx([0.45 / total, 1e-4 / total, 0.3 / total, 0.25 / total])
    assert again.expansion == pytest.approx(plan.tree.expansion)
    assert again.sources[0].most_epochs == 3.0


def test_old_runs_are_told_by_the_new_sources_and_those_that_are_gone() -> None:
    parts = (Source("law", 2e9), Source("health", 6e9))
    new = tree(web(science=6e9, games=5e9), Source("pages", parts=parts), Source("code", 5e9))
    plan = plan_reuse(OLD, OLD_TREE, new)
    runs = np.array([[0.4, 0.3, 0.1, 0.2], [0.0, 0.0, 1.0, 0.0]])
    ratios, names = plan.old_runs(runs, OLD_TREE)
    assert names == [*new.leaf_names, "web:games (old)", "wiki"]
    # science, games (revised), law, health, code, games as it was, wiki
    assert ratios == pytest.approx(
        np.array([[0.4, 0, 0.05, 0.15, 0, 0.3, 0.1], [0, 0, 0, 0, 0, 0, 1.0]])
    )


def test_old_runs_of_merged_parts_are_of_the_whole() -> None:
    plan = plan_reuse(OLD, OLD_TREE, tree(Source("web", 10e9), WIKI, PAGES))
    ratios, names = plan.old_runs(np.array([[0.4, 0.3, 0.1, 0.2]]), OLD_TREE)
    assert names == ["web", "wiki", "pages"]
    assert ratios == pytest.approx(np.array([[0.7, 0.1, 0.2]]))


@given(st.data())
def test_any_plan_gives_a_mixture_and_keeps_inner_ratios(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 8))
    ratio = st.floats(0.01, 1)
    raw = np.array(data.draw(st.lists(ratio, min_size=count, max_size=count)))
    old = tree(*(Source(f"s{i}", 1e9 * (i + 1)) for i in range(count)))
    mixture = dict(zip(old.names, (raw / raw.sum()).tolist(), strict=True))
    changed = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=count - 1))
    new = tree(*(replace(s, tokens=9e9) if i in changed else s for i, s in enumerate(old.sources)))
    plan = plan_reuse(mixture, old, new)
    assert len(plan.units) == 1 + len(changed)
    weights = np.array(
        data.draw(st.lists(ratio, min_size=len(plan.units), max_size=len(plan.units)))
    )
    found = plan.mixture(dict(zip(plan.units, (weights / weights.sum()).tolist(), strict=True)))
    assert sum(found.values()) == pytest.approx(1)
    share = sum(mixture[name] for name in plan.kept)
    for name in plan.kept:
        expected = weights[0] / weights.sum() * mixture[name] / share
        assert found[name] == pytest.approx(expected)
    # The old mixture itself is one of those that can be searched.
    back = {plan.units[0]: share} | {name: mixture[name] for name in plan.units[1:]}
    assert plan.mixture(back) == pytest.approx(mixture)


def test_neighbours_are_those_whose_balance_the_change_upsets() -> None:
    plan = plan_reuse(OLD, OLD_TREE, tree(WEB, WIKI, replace(PAGES, tokens=1e9)))
    domains = [*OLD]
    mixture = np.array([*OLD.values()])

    def slope(ratios: np.ndarray) -> np.ndarray:
        """Only wiki's worth depends on what there is of pages."""
        return np.array([-1.0, -1.0, -1.0 - 5 * ratios[3], -1.0])

    assert interacting(plan, domains, mixture, slope, 1) == ["wiki"]
    assert len(interacting(plan, domains, mixture, slope, 9)) == 3
    added = plan_reuse(OLD, OLD_TREE, tree(WEB, WIKI, PAGES, Source("code", 5e9)))
    with pytest.raises(ConfigError, match="name the sources to free"):
        interacting(added, domains, mixture, slope, 1)


@pytest.mark.parametrize(
    ("mixture", "new", "message"),
    [
        ({**OLD, "book": 0.0}, tree(WEB, WIKI), "unknown source 'book'"),
        ({**OLD, "wiki": 0.1}, tree(WEB, WIKI), "the ratios sum to 0.9, not 1"),
        (OLD, OLD_TREE, "nothing changed, so the old mixture stands"),
        (OLD, tree(Source("code", 1e9)), "everything changed"),
        (
            {"pages": 1.0},
            tree(WEB, WIKI, replace(PAGES, tokens=1e9)),
            "no share of the old mixture",
        ),
        (OLD, tree(WEB, WIKI, Source("existing", 1e9)), "give them another name"),
    ],
)
def test_mistakes_are_named(mixture: dict[str, float], new: SourceTree, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan_reuse(mixture, OLD_TREE, new)
    assert message in str(error.value)
    assert "list.yaml" in str(error.value) or "the old mixture" in str(error.value)


@pytest.mark.parametrize("option", ["free", "revised", "unchanged"])
def test_a_name_that_no_source_has_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="unknown source 'webb'; did you mean 'web'"):
        plan_reuse(OLD, OLD_TREE, tree(WEB, WIKI), **{option: ["webb"]})  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["revised", "unchanged"])
def test_a_new_source_is_neither_revised_nor_unchanged(option: str) -> None:
    new = tree(WEB, WIKI, PAGES, Source("code", 1e9))
    with pytest.raises(ConfigError, match="code: the old sources don't have it"):
        plan_reuse(OLD, OLD_TREE, new, **{option: ["code"]})  # type: ignore[arg-type]


FORMS = {
    "run.yaml": "mixture: {ratios: {web: 0.25, wiki: 0.75}}",
    "plain.yaml": "{web: 0.25, wiki: 0.75}",
    "launch.yaml": "mix: {web: {weight: 0.25, repetition_factor: 1.0}, wiki: {weight: 0.75}}",
    "optimal.json": '[{"domain": "web", "weight": 0.25}, {"domain": "wiki", "weight": 0.75}]',
    "answer.json": '{"law": "x", "mixture": {"web": 0.25, "wiki": 0.75}}',
    "list.yaml": "sources: [{source_name: web, target_ratio: .25, paths: [a]}, "
    "{source_name: wiki, target_ratio: .75, paths: [b]}]",
}


@pytest.mark.parametrize("name", FORMS)
def test_a_mixture_is_read_in_every_form(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(FORMS[name])
    assert read_mixture(path) == {"web": 0.25, "wiki": 0.75}


def test_a_mixture_is_read_as_it_was_written(tmp_path: Path) -> None:
    mixture = {"web:science": 1 / 3, "wiki": 2 / 3}
    assert read_mixture(write_mixture(mixture, tmp_path / "m.yaml")) == mixture


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{web: 0.25, wiki: 0.6}", "the ratios sum to 0.85, not 1"),
        ("{web: many, wiki: 1}", "web: 'many': expected a ratio"),
        ("mixture: 3", "mixture: expected a mapping"),
        ("mixture: {ratios: {}}", "holds no ratios"),
    ],
)
def test_a_file_without_a_mixture_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"m\.yaml") as error:
        read_mixture(path)
    assert message in str(error.value)
