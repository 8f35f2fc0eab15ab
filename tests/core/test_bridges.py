"""Mixtures as OLMo-core itself reads them: its list, its data set of files, and back again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from olmo_mixlaw.cli.app import app, run
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.swarm import olmix, olmo_core
from olmo_mixlaw.swarm.listed import read_mixture
from olmo_mixlaw.swarm.sources import Source, SourceTree

core = pytest.importorskip("olmo_core.data.source_mixture", reason="needs ai2-olmo-core 3")

RATIOS = {"web": 0.55, "code": 1 / 3, "wiki": 1 - 0.55 - 1 / 3}
TOKENS = {"web": 60_000, "code": 40_000, "wiki": 4000}
LENGTH, BATCH, ASKED = 16, 256, 51_200


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> SourceTree:
    """Three sources of 16-bit tokens, each in two files and named by a pattern."""
    folder = tmp_path_factory.mktemp("tokens")
    leaves = []
    for name, count in TOKENS.items():
        for part in range(2):
            values = np.arange(count // 2, dtype=np.uint16)
            values.tofile(folder / f"{name}-{part}.npy")
        leaves.append(Source(name, count, (str(folder / f"{name}-*.npy"),)))
    return SourceTree(tuple(leaves), "sources.yaml")


@pytest.fixture
def written(tree: SourceTree, tmp_path: Path) -> Path:
    row = np.array([*RATIOS.values()])
    path = tmp_path / "best.yaml"
    return olmo_core.write_source_mixture(tree, row, path, run_tokens=ASKED)


def test_its_list_reads_what_we_write(written: Path) -> None:
    listed = core.SourceMixtureList.from_yaml(str(written))
    listed.validate()
    for source in listed.sources:
        source.validate()
    assert {s.source_name: s.target_ratio for s in listed.sources} == RATIOS
    assert [len(s.resolved_paths) for s in listed.sources] == [2, 2, 2]
    often = {s.source_name: s.max_repetition_ratio for s in listed.sources}
    assert often["web"] == often["code"] == 1
    assert often["wiki"] == pytest.approx(ASKED * RATIOS["wiki"] / TOKENS["wiki"], abs=1e-3)


def test_its_data_set_has_the_ratios_that_we_asked_for(written: Path) -> None:
    config = core.SourceMixtureDatasetConfig(
        source_list=core.SourceMixtureList.from_yaml(str(written)),
        requested_tokens=ASKED,
        global_batch_size=BATCH,
        render_tables=False,
        quiet=True,
    )
    built = config.build(npdtype=np.uint16, sequence_length=LENGTH)
    found = {s.name: sum(p.tokens for p in s.path_tokens) for s in built.sources}
    total = sum(found.values())
    assert total == ASKED
    for name, ratio in RATIOS.items():
        # A sequence or two a file is what it rounds to.
        assert found[name] == pytest.approx(ratio * total, abs=4 * LENGTH)


def test_without_the_repeats_it_refuses_the_list(tree: SourceTree, tmp_path: Path) -> None:
    """What `--run-tokens` is for: the caps that we write are needed."""
    row = np.array([*RATIOS.values()])
    path = olmo_core.write_source_mixture(tree, row, tmp_path / "bare.yaml")
    config = core.SourceMixtureDatasetConfig(
        core.SourceMixtureList.from_yaml(str(path)), ASKED, BATCH, render_tables=False, quiet=True
    )
    with pytest.raises(core.OLMoConfigurationError, match="Insufficient tokens for source: wiki"):
        config.build(npdtype=np.uint16, sequence_length=LENGTH)


def test_lists_that_it_saves_are_read_back(written: Path, tmp_path: Path) -> None:
    """Its own YAML, of the list and of the whole data set, are sources and a mixture to us."""
    listed = core.SourceMixtureList.from_yaml(str(written))
    whole = core.SourceMixtureDatasetConfig(listed, ASKED, BATCH)
    for name, values in (("list", listed), ("whole", whole)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values.as_config_dict()))
        assert read_mixture(path) == pytest.approx(RATIOS, abs=1e-15)
        assert olmo_core.read_sources(path).leaf_names == tuple(RATIOS)


def test_the_command_writes_what_it_reads(written: Path, tmp_path: Path) -> None:
    """From its list and a mixture to its list: `olmo-mixlaw export mixture`."""
    mixture = tmp_path / "other.yaml"
    mixture.write_text(yaml.safe_dump({"mixture": {"ratios": {"web": 0.25, "code": 0.75}}}))
    out = tmp_path / "out.yaml"
    assert run(app, ["export", "mixture", str(mixture), str(written), "--olmo-core", str(out)]) == 0
    listed = core.SourceMixtureList.from_yaml(str(out))
    listed.validate()
    assert {s.source_name: s.target_ratio for s in listed.sources} == {"web": 0.25, "code": 0.75}


@pytest.mark.parametrize("ratio", [-0.1, 1.2])
def test_both_refuse_a_ratio_that_is_none(written: Path, ratio: float) -> None:
    values = yaml.safe_load(written.read_text())
    values["sources"][0]["target_ratio"] = ratio
    written.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="lies between 0 and 1"):
        olmo_core.read_mixture(written)
    listed = core.SourceMixtureList.from_yaml(str(written))
    with pytest.raises(core.OLMoConfigurationError, match="target_ratio"):
        listed.sources[0].validate()


def test_a_launch_file_of_olmix_says_the_same_files_and_mixture(
    tree: SourceTree, tmp_path: Path
) -> None:
    """Olmix hands each leaf's paths and ratio to OLMo-core; its file is that list, nested."""
    template = tmp_path / "mine.yaml"
    training = {"proxy_model_id": "olmo3_30m", "chinchilla_multiple": 5}
    launch = {"infra": {"budget": "b"}, "training": training, "eval": {"type": "inloop"}}
    template.write_text(yaml.safe_dump(launch))
    row = np.array([*RATIOS.values()])
    [path] = olmix.write_launch(
        tree, row[None], tmp_path, names=["launch"], template=template, run_tokens=ASKED
    )
    assert read_mixture(path) == pytest.approx(RATIOS)
    back = olmix.read_sources(path)
    entries = [
        core.SourceMixtureConfig(leaf.name, ratio, list(leaf.paths))
        for leaf, ratio in zip(back.leaves, read_mixture(path).values(), strict=True)
    ]
    assert [len(entry.resolved_paths) for entry in entries] == [2, 2, 2]
    core.SourceMixtureList(entries).validate()
