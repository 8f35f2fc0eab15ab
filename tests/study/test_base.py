"""Studies whose runs go on from a model that was trained before."""

import csv
import shutil
from dataclasses import replace

import pytest
import yaml

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models.ladder import load_ladder
from olmo_mixlaw.study.base import base_keys
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.plan import plan
from olmo_mixlaw.study.run import run_study

SIZES = ("w16", "w32")


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer's file, as the base's and the study's."""
    from olmo_mixlaw.datasets import open_dataset, train_tokenizer

    texts = (open_dataset("mixlaw:text?corpus=wikipedia").document(i) for i in range(40))
    path = tmp_path / "tokenizer.json"
    train_tokenizer(texts, 512, path)
    return path


@pytest.fixture
def bases(tmp_path, tokenizer):
    """Folders of two finished runs, of which only the configuration is there."""
    for size in SIZES:
        folder = tmp_path / "bases" / f"{size}-old" / "checkpoints" / "latest-unsharded"
        folder.mkdir(parents=True)
        rung = replace(load_ladder("micro-dense").rung(size), vocab_size=512)
        config = {"model": rung.olmo_model(), "tokenizer": {"identifier": str(tokenizer)}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "model.pt").touch()
    return tmp_path / "bases"


def edits(tokenizer, base):
    return [
        ("tokenizer: {vocab_size: 512, characters: 200_000}", f"base: '{base}'"),
        ("workers: 2", f"workers: 2\ntokenizer: {{identifier: {tokenizer}}}"),
    ]


def test_each_run_names_the_base_of_its_size(study_file, bases, tokenizer):
    # A relative path is beside the study's file.
    study = load_study(study_file(edits(tokenizer, "bases/{size}-old")))
    for run in plan(study):
        keys = base_keys(study, run)
        folder = bases / f"{run.rung.name}-old" / "checkpoints" / "latest-unsharded"
        assert keys["load_path"] == str(folder)
        assert keys["reset_trainer_state"] is keys["reset_optimizer_state"] is True


def test_a_study_without_a_base_says_nothing_of_one(study_file):
    study = load_study(study_file())
    assert base_keys(study, plan(study)[0]) == {}


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("bases/{size}-new", "bases/w32-new: no such model folder"),
        ("bases/w16-old", "model.d_model is 16, that of size w32 is 32"),
        ("bases", "is not an OLMo checkpoint"),
    ],
)
def test_a_base_that_cannot_be_is_refused(study_file, bases, tokenizer, base, said):
    with pytest.raises(ConfigError, match=said) as caught:
        load_study(study_file(edits(tokenizer, base)))
    assert "base" in str(caught.value)
    assert "tiny.yaml" in str(caught.value)


def test_a_base_needs_its_own_tokenizer(study_file, bases, tokenizer, tmp_path):
    with pytest.raises(ConfigError, match=r"tokenizer\.identifier"):
        load_study(study_file([("workers: 2", "workers: 2\nbase: bases/{size}-old")]))
    other = tmp_path / "other.json"
    other.write_text(
        tokenizer.read_text().replace('"add_prefix_space":false', '"add_prefix_space":true')
    )
    assert other.read_text() != tokenizer.read_text()
    with pytest.raises(ConfigError, match="isn't the base's"):
        load_study(study_file(edits(other, "bases/{size}-old")))


@pytest.mark.slow
def test_runs_go_on_from_the_runs_of_another_study(study_file, tmp_path):
    sizes = ("sizes: [w16, w32]", "sizes: [w16]"), ("size: w64", "size: w16")
    run_study(str(study_file(sizes)))
    shutil.move(tmp_path / "out", tmp_path / "first")
    tokenizer = tmp_path / "first" / "data" / "tokenizer.json"
    base = "first/runs/{size}-low-{tokens}-s{seed}"
    run_study(str(study_file([*sizes, *edits(tokenizer, base)], "second.yaml")))

    def losses(study, run):
        path = tmp_path / study / "runs" / run / "checkpoints" / "metrics.csv"
        return [float(row["loss"]) for row in csv.DictReader(path.open())]

    for mixture in ("low", "mid", "high"):
        cold, warm = (losses(s, f"w16-{mixture}-40k-s1") for s in ("first", "out"))
        assert warm[0] < cold[0] - 0.5
