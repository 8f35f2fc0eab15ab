"""OLMo-core's source lists: read, and written by mixture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.swarm import olmo_core
from olmo_mixlaw.swarm.sources import Source, SourceTree

LISTED = """
sources:
  - source_name: web
    target_ratio: 0.7
    paths:
      # 21,390,279,634
      - gs://bucket/web/**/*.npy
      - gs://bucket/more/*.npy
  - source_name: math
    target_ratio: .1
    max_repetition_ratio: 2.5
    max_source_fraction: 0.5
    paths: [gs://bucket/math/part-*.npy]
  - source_name: code:python
    target_ratio: 0.2
    paths: [tokens/python.npy]
"""


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "list.yaml"
    path.write_text(LISTED)
    return path


def test_a_list_gives_sources_their_files_caps_and_prior(listed: Path) -> None:
    tree = olmo_core.read_sources(listed)
    assert tree.leaf_names == ("web", "math", "code:python")
    assert tree.leaves[0].paths == ("gs://bucket/web/**/*.npy", "gs://bucket/more/*.npy")
    assert tree.leaves[2].paths == (str(listed.parent / "tokens/python.npy"),)
    assert [leaf.most_epochs for leaf in tree.leaves] == [None, 1.25, None]
    assert tree.prior == pytest.approx([0.7, 0.1, 0.2])
    assert olmo_core.read_mixture(listed) == {"web": 0.7, "math": 0.1, "code:python": 0.2}


def test_the_whole_dataset_configuration_is_read_by_its_list(tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    whole = {"source_list": yaml.safe_load(LISTED), "requested_tokens": 10**9}
    path.write_text(yaml.safe_dump({**whole, "global_batch_size": 2**20}))
    assert olmo_core.read_mixture(path) == {"web": 0.7, "math": 0.1, "code:python": 0.2}


def test_a_ratio_of_0_leaves_the_prior_to_the_tokens(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    some = [("a", 1.0), ("b", 0.0)]
    sources = [{"source_name": n, "target_ratio": r, "paths": [f"s3://b/{n}"]} for n, r in some]
    path.write_text(yaml.safe_dump({"sources": sources}))
    assert olmo_core.read_sources(path).prior_weights is None


def test_mixtures_are_written_and_read_back(listed: Path, tmp_path: Path) -> None:
    tree = olmo_core.read_sources(listed)
    ratios = np.array([[0.1, 0.3, 0.6], [1 / 3, 2 / 3, 0.0]])
    files = olmo_core.write_source_mixtures(tree, ratios, tmp_path / "out", names=["a", "b"])
    assert [file.name for file in files] == ["a.yaml", "b.yaml"]
    assert olmo_core.read_mixture(files[0]) == {"web": 0.1, "math": 0.3, "code:python": 0.6}
    assert olmo_core.read_mixture(files[1]) == {"web": 1 / 3, "math": 2 / 3}
    assert [leaf.paths for leaf in olmo_core.read_sources(files[0]).leaves] == [
        leaf.paths for leaf in tree.leaves
    ]


def test_repeats_that_a_run_needs_are_allowed_and_no_others(tmp_path: Path) -> None:
    tree = SourceTree(
        (Source("big", 1e12, ("s3://b/x",)), Source("small", 3e6, ("s3://b/y",))), "list"
    )
    path = tmp_path / "best.yaml"
    row = np.array([0.9, 0.1])
    assert olmo_core.write_source_mixture(tree, row, path, run_tokens=1e8) == path
    big, small = yaml.safe_load(path.read_text())["sources"]
    assert "max_repetition_ratio" not in big
    # OLMo-core asks that tokens x ratio be no less than what is needed.
    assert small["max_repetition_ratio"] == 3.334
    assert int(3e6 * small["max_repetition_ratio"]) >= int(1e8 * small["target_ratio"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.7", "0.6", "the target ratios sum to 0.9, not 1"),
        ("target_ratio: 0.7", "target_ratio: 1.7", "web.target_ratio: 1.7; it lies between 0 and"),
        ("2.5", "0.5", "math.max_repetition_ratio: 0.5; it must be 1 or above"),
        ("0.5\n", "1.5\n", "math.max_source_fraction: 1.5"),
        ("[gs://bucket/math/part-*.npy]", "[]", "math.paths: at least one is needed"),
        ("    target_ratio: 0.7\n", "", "target_ratio"),
        ("source_name: web", "source: web", "unknown key"),
    ],
)
def test_mistakes_are_named(listed: Path, old: str, new: str, message: str) -> None:
    text = listed.read_text()
    assert old in text
    listed.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=r"list\.yaml") as error:
        olmo_core.read_sources(listed)
    assert message in str(error.value)


def test_a_leaf_without_files_is_refused(tmp_path: Path) -> None:
    tree = SourceTree((Source("web", 1e9),), "list.yaml")
    with pytest.raises(ConfigError, match=r"list\.yaml: web: has no files for OLMo-core"):
        olmo_core.write_source_mixtures(tree, np.ones((1, 1)), tmp_path / "out", names=["a"])
    assert not (tmp_path / "out").exists()
