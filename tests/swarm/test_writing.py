"""What a swarm writes: its tables, a study, OLMo's files; each as the next reader wants it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from source_trees import flat, nested

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.mixture.ratios import check_ratios
from olmo_mixlaw.shipped import find_config
from olmo_mixlaw.swarm.draws import Draw
from olmo_mixlaw.swarm.limits import limits_of
from olmo_mixlaw.swarm.making import Swarm, drawn, planned, summary
from olmo_mixlaw.swarm.mixtures import Mixtures, read_mixtures
from olmo_mixlaw.swarm.sources import Source, SourceTree
from olmo_mixlaw.swarm.writing import study_values, write_olmo, write_tables

MICRO = find_config("configs/train", "micro")


def swarm_of(tree: SourceTree, n: int = 6, **options: float) -> Swarm:
    return drawn(tree, limits_of(tree, least_ratio=0.002, **options), n, Draw())


def generated() -> SourceTree:
    """Three sources that can be trained on, one in two parts."""
    people = Source(
        "people",
        parts=tuple(
            Source(f"p{n}", 1e5 * n, uri=f"mixlaw:biography?n={n}&seed={n}&templates=1")
            for n in (4, 8)
        ),
    )
    slope = Source("slope", 4e5, uri="mixlaw:slope?seed=1")
    howto = Source("howto", 1e6, uri="mixlaw:text?corpus=howto&max_documents=50")
    return SourceTree((people, slope, howto), "list.yaml")


def test_the_same_swarm_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_tables(swarm_of(nested()), tmp_path / folder)
    for name in ("ratios.csv", "leaves.csv", "swarm.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_provenance_says_what_it_was_made_from(tmp_path: Path) -> None:
    made = replace(swarm_of(nested()), target_tokens=1e12)
    write_tables(made, tmp_path)
    said = json.loads((tmp_path / "swarm.json").read_text(encoding="utf-8"))
    assert said["made"]["method"] == "dirichlet"
    assert (said["made"]["seed"], said["made"]["max_strength"]) == (0, 5.0)
    assert said["prior"] == pytest.approx(
        {"web:science": 0.3, "web:games": 0.2, "code": 0.4, "wiki": 0.1}
    )
    assert said["groups"] == [{"sources": ["web:science", "web:games"], "limits": [0.0, 0.8]}]
    web = said["sources"][0]
    assert (web["tokens"], web["most"], web["parts"][1]["pinned"]) == (100e9, 0.8, True)
    endless = SourceTree((Source("a", np.inf, uri="mixlaw:slope"),), "list.yaml", {"a": 1.0})
    write_tables(swarm_of(endless, 1), tmp_path / "endless")
    text = (tmp_path / "endless" / "swarm.json").read_text(encoding="utf-8")
    assert json.loads(text)["sources"][0]["tokens"] is None


def test_a_swarm_is_written_over_only_by_one_that_begins_with_it(tmp_path: Path) -> None:
    tree = flat([4.0, 2.0, 1.0])
    write_tables(swarm_of(tree, 6), tmp_path)
    write_tables(swarm_of(tree, 9), tmp_path)
    assert len(read_mixtures(tmp_path, tree).ids) == 9
    with pytest.raises(ConfigError, match="other mixtures are here; grow them"):
        write_tables(swarm_of(tree, 6, max_epochs=1, target_tokens=6), tmp_path)


def test_a_study_has_the_leaves_as_domains_and_nothing_of_the_template_s(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(
        "ladder: micro-dense\nsizes: [w16]\ntokens: [1M]\ndomains: {old: x}\n"
        "mixtures: {old: {old: 1}}\ntarget: {size: w16, tokens: 1M, weights: {old: 1, slope: 2}}\n"
    )
    made = swarm_of(generated())
    values = study_values(made, template, tmp_path / "out")
    assert list(values["domains"]) == ["people-p4", "people-p8", "slope", "howto"]
    assert values["target"]["weights"] == {"slope": 2}
    assert values["output"] == str(tmp_path / "out" / "study")
    for run, row in zip(made.ids, made.leaf_ratios, strict=True):
        ratios = check_ratios(values["mixtures"][run], list(values["domains"]), run)
        np.testing.assert_allclose(ratios, row, atol=1e-15)
    assert "match_repeats" not in values
    matched = replace(made, match_repeats=True)
    assert study_values(matched, template, tmp_path)["match_repeats"] is True


@pytest.mark.olmo
def test_a_training_file_a_mixture_says_its_sources_ratios_and_folder(tmp_path: Path) -> None:
    from olmo_mixlaw.training.config import load

    made = replace(swarm_of(generated()), match_repeats=True, run_tokens=2e6, target_tokens=8e6)
    files = write_olmo(made, MICRO, tmp_path)
    assert [file.name for file in files] == [f"{run}.yaml" for run in made.ids]
    for file, run, row in zip(files, made.ids, made.leaf_ratios, strict=True):
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        present = {name for name, r in zip(made.tree.leaf_names, row, strict=True) if r > 0}
        assert set(values["mixture"]["ratios"]) == set(values["data"]["datasets"]) == present
        assert sum(values["mixture"]["ratios"].values()) == pytest.approx(1, abs=1e-12)
        assert values["mixture"]["source_share"] == 0.25
        assert (values["run_name"], values["save_folder"]) == (f"micro-{run}", f"runs/micro/{run}")
    config = load(str(files[0]), [])
    assert config.mixture.source_share == 0.25


def test_matched_repeats_say_the_tokens_that_runs_have(tmp_path: Path) -> None:
    tree = flat([400.0, 80.0])
    made = replace(swarm_of(tree), match_repeats=True, run_tokens=25, target_tokens=100)
    write_tables(made, tmp_path)
    header, first, *_ = (tmp_path / "ratios.csv").read_text(encoding="utf-8").splitlines()
    assert header == "run,name,index,s0,s1,available_s0,available_s1"
    assert first.endswith(",100.0,20.0")
    with pytest.raises(ConfigError, match="match-repeats: give target-tokens, and run-tokens"):
        write_tables(replace(made, run_tokens=None), tmp_path / "other")


def test_what_can_t_be_trained_on_is_refused(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text("save_folder: x\n")
    with pytest.raises(ConfigError, match=r"list.yaml: s0: has no files"):
        write_olmo(swarm_of(flat([2.0, 1.0])), template, tmp_path)
    two = SourceTree((Source("a", 1.0, paths=("x.npy", "y.npy")),), "list.yaml")
    with pytest.raises(ConfigError, match="a: 2 paths, and a study takes one a domain"):
        study_values(swarm_of(two, 1), template, tmp_path)
    clash = SourceTree(
        (Source("a", parts=(Source("b", 1.0, uri="mixlaw:slope"),)), Source("a-b", 1.0)),
        "list.yaml",
    )
    with pytest.raises(ConfigError, match="two sources would be domain a-b; rename one"):
        study_values(swarm_of(clash, 2), template, tmp_path)
    template.write_text("seed: 1\n")
    with pytest.raises(ConfigError, match="save_folder: is needed"):
        write_olmo(swarm_of(generated()), template, tmp_path)


def test_planned_mixtures_must_meet_the_limits() -> None:
    tree = nested()
    limits = limits_of(tree, least_ratio=0.01)
    good = np.array([[0.5, 0.3, 0.2, 0.0], [0.0, 0.0, 0.5, 0.5]])
    made = planned(tree, limits, Mixtures(("a", "b"), good))
    np.testing.assert_array_equal(made.ratios, good)
    for bad, problem in (
        ([0.5, 0.4, 0.1, 0.0], "web:science, web:games sum to 0.9, and may to 0 to 0.8"),
        ([0.5, 0.0, 0.495, 0.005], "wiki has 0.005, and may have 0.01 to 1"),
    ):
        mixtures = Mixtures(("a", "b", "c"), np.vstack([good, bad]))
        with pytest.raises(ConfigError, match=f"mixture c: breaks a limit: {problem} .1 of 3"):
            planned(tree, limits, mixtures)


def test_the_summary_counts_ratios_and_epochs() -> None:
    tree = SourceTree((Source("a", 100.0), Source("b", np.nan)), "list.yaml", {"a": 1, "b": 3})
    ratios = np.array([[0.2, 0.8], [0.0, 1.0], [0.4, 0.6]])
    made = Swarm(tree, limits_of(tree), ("x", "y", "z"), ratios, target_tokens=1000.0)
    a, b = summary(made)
    assert (a["prior"], a["least"], a["greatest"]) == (0.25, 0.0, 0.4)
    assert a["mean"] == pytest.approx(0.2)
    assert (a["present"], a["most_epochs"]) == (pytest.approx(2 / 3), pytest.approx(4.0))
    assert a["epochs"] == pytest.approx(2.0)
    assert (b["epochs"], b["most_epochs"]) == (None, None)
