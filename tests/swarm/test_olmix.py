"""Olmix's files: sources in, launches out, and its two tables beside them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.swarm import olmix
from olmo_mixlaw.swarm.config import read_sources
from olmo_mixlaw.swarm.sources import Source, SourceTree

GENERATE = """
name: web-and-code
data:
  sources:
  - name: web
    topics:
    - name: science
      quality:
      - {name: high, paths: ["s3://bucket/web/science/high/*.npy"]}
      - {name: low, paths: ["s3://bucket/web/science/low/*.npy"]}
    - name: games
      paths: ["s3://bucket/web/games/**/*.npy"]
  - name: wiki
    paths:
    - s3://bucket/wiki/*.npy
  - name: code
    quality:
    - {name: best, paths: ["s3://bucket/code/best/*.npy"]}
    - {name: rest, paths: ["s3://bucket/code/rest/*.npy"]}
priors:
  relative_sizes: {web:science:high: 0.1, web:science:low: 0.3, web:games: 0.2, wiki: 0.1,
    code:best: 0.1, code:rest: 0.2}
  token_counts: {web:science:high: 1_000_000_000, web:science:low: 3000000000,
    web:games: 2000000000, wiki: 1000000000, code:best: 1000000000, code:rest: 2000000000}
swarm:
  seed: 42
  variants: 8
  minimum_weight: 0.002
max_tokens: 4000000000
"""
LAUNCH = """
name: proxy
description: a small model
infra: {budget: team/b, workspace: team/w, cluster: team/c, priority: high, nodes: 1, gpus: 1}
training: {proxy_model_id: olmo3_30m, tokenizer: dolma2, chinchilla_multiple: 5, seed: 42}
data:
  sources:
  - name: wiki
    paths: ["s3://bucket/wiki/*.npy"]
  dtype: uint16
eval:
  type: inloop
  tasks: {qa: {piqa_val_rc_5shot: "eval/downstream/piqa_val_rc_5shot (BPB v2)"}}
group_id: abc
mix: {wiki: {weight: 1.0, repetition_factor: 1.0}}
"""
LEAVES = ("web:science:high", "web:science:low", "web:games", "wiki", "code:best", "code:rest")


@pytest.fixture
def generate(tmp_path: Path) -> Path:
    path = tmp_path / "generate.yaml"
    path.write_text(GENERATE)
    return path


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(LAUNCH)
    return path


def changed(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_sources_have_the_files_tokens_caps_and_prior_of_the_configuration(generate: Path) -> None:
    tree = read_sources([str(generate)])  # told by its keys from a list of ours
    assert tree.leaf_names == LEAVES
    assert tree.leaves[0].paths == ("s3://bucket/web/science/high/*.npy",)
    assert tree.tokens() == pytest.approx([1e9, 3e9, 2e9, 1e9, 1e9, 2e9])
    # Once at most: 1e9 of 4e9 tokens.
    assert [leaf.most for leaf in tree.leaves] == [0.25, 0.75, 0.5, 0.25, 0.25, 0.5]
    assert tree.prior == pytest.approx([0.1, 0.3, 0.2, 0.1, 0.1, 0.2])


def test_a_cap_by_repetition_is_wider_or_gone_as_the_file_says(generate: Path) -> None:
    text = generate.read_text()
    generate.write_text(text.replace("  seed: 42", "  repetition_factor: 2"))
    assert [leaf.most for leaf in olmix.read_sources(generate).leaves][3] == 0.5
    generate.write_text(text.replace("  seed: 42", "  enable_bound: false"))
    assert [leaf.most for leaf in olmix.read_sources(generate).leaves][3] == 1.0


def test_a_manual_prior_replaces_the_sizes_of_the_sources_it_names(generate: Path) -> None:
    changed(generate, "  variants: 8", "  manual_prior: {code: 0.6, wiki: 0.2}")
    # web keeps its .6; all are rescaled.
    assert olmix.read_sources(generate).prior_weights == pytest.approx(
        {"web": 0.6, "wiki": 0.2, "code": 0.6}
    )


def test_weights_of_topics_and_qualities_pin_them(generate: Path) -> None:
    changed(generate, "- name: games\n", "- name: games\n      weight: 0.4\n")
    changed(generate, "- name: science\n", "- name: science\n      weight: 0.6\n")
    text = generate.read_text()
    for name, weight in (("best", 70), ("rest", 30)):
        text = text.replace(f"{{name: {name},", f"{{name: {name}, weight: {weight},")
    generate.write_text(text)
    tree = olmix.read_sources(generate)
    assert tree.names == ("web", "wiki", "code")
    assert tree.expand(np.array([0.5, 0.1, 0.4])) == pytest.approx(
        [0.5 * 0.6 / 4, 0.5 * 0.6 * 3 / 4, 0.5 * 0.4, 0.1, 0.28, 0.12]
    )


def test_weights_of_sources_hold_them(generate: Path) -> None:
    text = generate.read_text()
    for name, weight in (("web", 0.5), ("wiki", 0.2), ("code", 0.3)):
        text = text.replace(f"  - name: {name}\n", f"  - name: {name}\n    weight: {weight}\n")
    generate.write_text(text)
    assert [(s.least, s.most) for s in olmix.read_sources(generate).sources] == [
        (0.5, 0.5),
        (0.2, 0.2),
        (0.3, 0.3),
    ]


def test_token_files_here_are_counted_with_the_dtype_of_the_configuration(tmp_path: Path) -> None:
    for name, count in (("a", 30), ("b", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.npy").write_bytes(
            np.arange(1, count + 1, dtype=np.uint32).tobytes()
        )
    path = tmp_path / "launch.yaml"
    listed = [{"name": name, "paths": [f"{name}/*.npy"]} for name in "ab"]
    path.write_text(yaml.safe_dump({"data": {"sources": listed}}))
    assert olmix.read_sources(path).tokens() == pytest.approx([30, 10])


def test_launches_are_self_contained_and_read_back(
    generate: Path, template: Path, tmp_path: Path
) -> None:
    tree = olmix.read_sources(generate)
    ratios = np.array([[0.5, 0.0, 0.1, 0.2, 0.1, 0.1], [1.0, 0, 0, 0, 0, 0]])
    files = olmix.write_launch(
        tree, ratios, tmp_path / "out", names=["m0000", "m0001"], template=template
    )
    assert sorted(p.name for p in (tmp_path / "out").glob("*.yaml")) == ["m0000.yaml", "m0001.yaml"]
    first = yaml.safe_load(files[0].read_text())
    base = yaml.safe_load(LAUNCH)
    assert first["name"] == "proxy-m0000"
    assert {k: first[k] for k in ("infra", "training", "eval", "group_id")} == {
        k: base[k] for k in ("infra", "training", "eval", "group_id")
    }
    assert first["data"]["dtype"] == "uint16"
    # 20 x 30M x 5 tokens: half of them are 1.5 times what the leaf has.
    assert first["mix"]["web:science:high"] == {"weight": 0.5, "repetition_factor": 1.5}
    assert first["mix"]["web:science:low"] == {"weight": 0.0, "repetition_factor": 1.0}
    again = olmix.read_sources(files[0])
    assert [(s.name, s.paths) for s in again.leaves] == [(s.name, s.paths) for s in tree.leaves]
    assert list(olmix.read_mix(files[1])) == list(LEAVES)
    assert olmix.read_mix(files[0]) == dict(zip(LEAVES, ratios[0].tolist(), strict=True))


def test_a_pinned_source_keeps_its_weights_through_a_launch(template: Path, tmp_path: Path) -> None:
    parts = (Source("web:games", 3e9, ("s3://b/g",)), Source("wiki", 1e9, ("s3://b/w",)))
    kept = Source("existing", parts=parts, pinned=True, inner=(0.9, 0.1))
    tree = SourceTree((kept, Source("code", 1e9, ("s3://b/c",))), "here")
    ratios = tree.expand(np.array([[0.8, 0.2]]))
    file = olmix.write_launch(tree, ratios, tmp_path, names=["m"], template=template)[0]
    again = olmix.read_sources(file)
    assert again.names == ("existing", "code")
    assert again.expansion == pytest.approx(tree.expansion)
    assert olmix.read_mix(file) == pytest.approx(
        {"existing:web:games": 0.72, "existing:wiki": 0.08, "code": 0.2}
    )


def test_a_nested_mix_multiplies_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "launch.yaml"
    path.write_text(
        "mix:\n  web: {weight: 0.8, repetition_factor: 2.0, games: 0.25, science: {weight: 0.75}}\n"
        "  wiki: 0.2\n"
    )
    assert olmix.read_mix(path) == pytest.approx(
        {"web:games": 0.2, "web:science": 0.6, "wiki": 0.2}
    )


def test_a_generation_file_says_what_its_tree_says(generate: Path, tmp_path: Path) -> None:
    tree = olmix.read_sources(generate)
    out = olmix.write_generation(
        tree, tmp_path / "new.yaml", name="new", max_tokens=4 * 10**9, swarm={"variants": 16}
    )
    again = olmix.read_sources(out)
    assert again.leaves == tree.leaves
    assert again.prior == pytest.approx(tree.prior)
    assert yaml.safe_load(out.read_text())["swarm"]["variants"] == 16


def test_its_two_tables_are_read_beside_the_launches(tmp_path: Path) -> None:
    from olmo_mixlaw.runs.importers import two_files

    rows = [["run", "name", "index", "web", "wiki"], ["a1", "s-0", 0, 0.25, 0.75]]
    rows.append(["b2", "s-1", 1, 0.5, 0.5])
    losses = [["run", "name", "index", "piqa_bpb"], ["a1", "s-0", 0, 1.25], ["b2", "s-1", 1, 1.5]]
    for name, table in (("ratios", rows), ("metrics", losses)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(table)
    design = two_files(tmp_path / "ratios.csv", tmp_path / "metrics.csv").design()
    assert design.ratios.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert design.losses.tolist() == [[1.25], [1.5]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  - name: wiki\n    paths:\n    - s3://bucket/wiki/*.npy", "  - name: wiki", "expected"),
        ("name: games\n", "name: games\n      weight: 1\n", "science: weight: give one to every"),
        ("wiki: 0.1,", "wiky: 0.1,", "relative_sizes: unknown source 'wiky'; did you mean 'wiki'"),
        ("wiki: 1000000000,", "", "token_counts: leaves out wiki"),
        ("code:rest: 2000000000", "code:rest: -1", "token_counts.code:rest: -1; it must be 0"),
        ("variants: 8", "manual_prior: {cod: 1}", "manual_prior: unknown source 'cod'"),
        ("variants: 8", "manual_prior: [1]", "manual_prior: expected a mapping"),
        ("- name: games", "- nam: games", "unknown key"),
        ("max_tokens: 4000000000", "max_tokens: many", "max_tokens: 'many' is not a count"),
    ],
)
def test_mistakes_are_named(generate: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"generate\.yaml") as error:
        olmix.read_sources(changed(generate, old, new))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("infra", "infra: is needed to launch a run"),
        ("paths", "wiki: has no files for Olmix; give paths"),
        ("ratios", "must be 0 or above and sum to 1"),
        ("names", "expected 2 of 1 sources"),
    ],
)
def test_what_can_not_be_launched_is_refused(
    template: Path, tmp_path: Path, what: str, message: str
) -> None:
    if what == "infra":
        changed(template, "infra:", "infrastructure:")
    tree = SourceTree((Source("wiki", 1e9, () if what == "paths" else ("s3://b/w",)),), "list.yaml")
    ratios = np.array([[0.9 if what == "ratios" else 1.0]])
    names = ["a", "b"] if what == "names" else ["a"]
    with pytest.raises(ConfigError, match=message):
        olmix.write_launch(tree, ratios, tmp_path / "out", names=names, template=template)
    assert not (tmp_path / "out").exists()
