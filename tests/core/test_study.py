"""Studies on OLMo-core: planned and checked anywhere, trained and scored where it is installed."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tiny_study import STUDY

from olmo_mixlaw.errors import CheckpointError, ConfigError
from olmo_mixlaw.models.ladder import load_ladder
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study.analysis import write_proposal
from olmo_mixlaw.study.base import base_keys
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.plan import plan, rung_of
from olmo_mixlaw.study.run import check_same_study, run_study
from olmo_mixlaw.study.trainers import run_config
from olmo_mixlaw.training_core import process, saved
from olmo_mixlaw.training_core.config import check, from_mapping

# On OLMo-core, with a vocabulary of no multiple of 128, one run at a time.
CHANGES = (
    ("name: tiny", "name: tiny\ntrainer: olmo-core"),
    ("vocab_size: 512", "vocab_size: 600"),
    ("workers: 2", "workers: 1"),
)
SIZES = ("sizes: [w16, w32]", "sizes: [olmo2_1M, olmo2_14M]")
FACTORIES = [("ladder: micro-dense", "ladder: olmo-core"), SIZES, ("size: w64", "size: olmo2_30M")]
ONE_SIZE = [("sizes: [w16, w32]", "sizes: [w16]"), ("size: w64", "size: w16")]
SIX = """mixtures:
  a: {wiki: 0.9, bio: 0.1}
  b: {wiki: 0.75, bio: 0.25}
  c: {wiki: 0.6, bio: 0.4}
  d: {wiki: 0.45, bio: 0.55}
  e: {wiki: 0.3, bio: 0.7}
  f: {wiki: 0.15, bio: 0.85}
laws:"""

try:
    saved.require_core("tests")
    ABSENT = ""
except CheckpointError as reason:
    ABSENT = str(reason)
needs_core = pytest.mark.skipif(bool(ABSENT), reason=ABSENT or "it is there")


@pytest.fixture
def study_file(tmp_path):
    """Writes the study into a folder of its own; `edits` replace text in it."""

    def write(edits=(), name="tiny.yaml"):
        text = STUDY.format(output=tmp_path / "out")
        for old, new in (*CHANGES, *edits):
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_factories_are_planned_by_their_numbers_and_a_padded_vocabulary(study_file):
    study = load_study(study_file(FACTORIES))
    runs = plan(study)
    assert len(runs) == 6
    assert {run.rung.name for run in runs} == {"olmo2_1M", "olmo2_14M"}
    small = rung_of(study, "olmo2_1M")
    assert small.vocab_size == 640  # of 600 entries, in whole multiples of 128
    one = 3 * 12 * 256 + 4 * 12 * 16 + 2 * 16 + 2 * 12
    assert small.n_params == 4 * one + 12
    assert small.n_embedding == 2 * 640 * 12
    assert rung_of(load_study(study_file()), "w16").vocab_size == 640
    olmo = load_study(study_file([("trainer: olmo-core", "trainer: olmo")]))
    assert rung_of(olmo, "w16").vocab_size == 600


def test_the_proposed_run_is_this_trainers(study_file, tmp_path):
    study = load_study(study_file())
    rung = rung_of(study, study.target.size)
    ratios = SimpleNamespace(mixture=lambda decimals: {"wiki": 0.7, "bio": 0.3})
    answer = SimpleNamespace(rung=rung, proposal=ratios, chosen="transfer")
    path = write_proposal(study, answer, tmp_path)
    config = from_mapping(yaml.safe_load(path.read_text()), str(path))
    check(config, str(path), world_size=1, on_gpu=False)
    assert config.mixture.ratios == {"wiki": 0.7, "bio": 0.3}
    assert config.save_folder == str(tmp_path / "proposed")


@pytest.mark.parametrize("edits", [[], FACTORIES])
def test_a_runs_file_is_what_training_reads(study_file, edits, tmp_path):
    study = load_study(study_file(edits))
    for run in plan(study):
        values = run_config(study, run, tmp_path / "t.json", tmp_path / "s", tmp_path / "c")
        config = from_mapping(yaml.safe_load(yaml.safe_dump(values)), "config.yaml")
        check(config, "config.yaml", world_size=1, on_gpu=False)
        assert config.global_batch_size == run.rung.batch_tokens
        assert config.tokenizer.vocab_size == 600
        assert int(config.max_duration) * config.global_batch_size == run.n_tokens
        assert config.mixture.ratios == run.ratios


@needs_core
def test_a_runs_model_has_the_rungs_parameters(study_file, tmp_path):
    from olmo_core.data import TokenizerConfig

    from olmo_mixlaw.training_core.models import model_config

    for edits in ([], FACTORIES):
        study = load_study(study_file(edits))
        for run in plan(study):
            values = run_config(study, run, tmp_path / "t.json", tmp_path / "s", tmp_path / "c")
            tokenizer = TokenizerConfig(**values["tokenizer"])
            config = from_mapping(values, "config.yaml")
            model = model_config(config.model, tokenizer.padded_vocab_size())
            assert model.num_params == run.rung.n_total


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ([("trainer: olmo-core", "trainer: olmo_core")], "trainer: .*did you mean 'olmo-core'"),
        ([*FACTORIES, ("olmo2_14M]", "olmo2_15M]")], "did you mean 'olmo2_1M'"),
        ([("trainer: olmo-core", "trainer: olmo"), *FACTORIES], "sizes: olmo2_1M: head_dim"),
        (
            [
                ("micro-dense", "micro-moe"),
                ("[w16, w32]", "[98k-A50k]"),
                ("size: w64", "size: 98k-A50k"),
            ],
            "init_fn",
        ),
    ],
)
def test_a_study_that_cannot_be_trained_is_refused(study_file, edits, said):
    if "init_fn" in said:
        small = next(iter(load_ladder("micro-moe").rungs))
        edits = [(old, new.replace("98k-A50k", small)) for old, new in edits]
    with pytest.raises(ConfigError, match=said) as caught:
        load_study(study_file(edits))
    assert "tiny.yaml" in str(caught.value)


@pytest.mark.parametrize("installed", [None, "0.1.0"])
def test_without_olmo_core_a_study_says_so_before_anything_runs(
    study_file, monkeypatch, tmp_path, installed
):
    found = {"ai2-olmo-core": installed, "ai2-olmo": None}
    monkeypatch.setattr(process, "installed", found.get)
    with pytest.raises(ConfigError, match=r"trainer: olmo-core: needs ai2-olmo-core 3") as caught:
        run_study(str(study_file()))
    assert "pip install" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_micro_core_is_micro_on_olmo_core():
    theirs, ours = (dataclasses.asdict(load_study(name)) for name in ("micro", "micro-core"))
    changed = {key for key in ours if ours[key] != theirs[key]}
    assert changed == {"name", "output", "trainer"}


def test_one_folder_holds_runs_of_one_trainer(study_file, tmp_path):
    study = load_study(study_file())
    shared = {key: dataclasses.asdict(study)[key] for key in ("ladder", "domains", "tokenizer")}
    shared["evaluation"] = dataclasses.asdict(study.evaluation)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shared.json").write_text(json.dumps(shared))
    with pytest.raises(ConfigError, match="trainer was 'olmo', now 'olmo-core'"):
        check_same_study(study, tmp_path / "out")
    check_same_study(dataclasses.replace(study, trainer="olmo"), tmp_path / "out")


@pytest.fixture
def base(tmp_path):
    """The folder of a finished run on OLMo-core, with a tokenizer; weights aren't there."""
    from olmo_mixlaw.datasets import open_dataset, train_tokenizer

    texts = (open_dataset("mixlaw:text?corpus=wikipedia").document(i) for i in range(40))
    train_tokenizer(texts, 512, tmp_path / "tokenizer.json")
    attention = {"n_heads": 2, "_CLASS_": "olmo_core.nn.attention.AttentionConfig"}
    model = {"d_model": 16, "n_layers": 2, "vocab_size": 512}
    model["block"] = {"sequence_mixer": attention, "feed_forward": {"hidden_size": 40}}
    for step in (5, 10):
        folder = tmp_path / "old" / f"step{step}"
        (folder / "model_and_optim").mkdir(parents=True)
        (folder / "model_and_optim" / ".metadata").touch()
        config = {"model": model, "dataset": {"tokenizer": {"identifier": "none"}}}
        (folder / "config.json").write_text(json.dumps(config))
    return tmp_path / "old"


def on_base(tmp_path, base):
    given = f"tokenizer: {{identifier: {tmp_path / 'tokenizer.json'}}}\nbase: {base}"
    return [*ONE_SIZE, ("tokenizer: {vocab_size: 600, characters: 200_000}", given)]


def test_runs_begin_with_the_newest_checkpoint_of_a_base(study_file, base, tmp_path):
    study = load_study(study_file(on_base(tmp_path, "old")))
    for run in plan(study):
        assert base_keys(study, run) == {"load_path": str(base / "step10")}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("d_model", 32, "model.d_model is 32, that of size w16 is 16"),
        ("vocab_size", 1024, "model.vocab_size is 1024"),
        ("block", {"n_heads": 4}, "model.n_heads is 4"),
        (None, None, "is no checkpoint of OLMo-core"),
    ],
)
def test_a_base_of_another_shape_is_refused(study_file, base, tmp_path, key, value, said):
    file = base / "step10" / "config.json"
    config = json.loads(file.read_text())
    if key is None:
        (tmp_path / "empty").mkdir()
        base = tmp_path / "empty"
    else:
        config["model"][key] = value
        file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=said) as caught:
        load_study(study_file(on_base(tmp_path, base)))
    assert "tiny.yaml: base" in str(caught.value)


def losses(folder: Path) -> list[float]:
    path = folder / "checkpoints" / "metrics.csv"
    return [float(row["loss"]) for row in csv.DictReader(path.open())]


@needs_core
@pytest.mark.slow
def test_a_study_runs_and_six_mixtures_go_on_from_one_of_its_models(study_file, tmp_path, capsys):
    run_study(str(study_file()))
    out = tmp_path / "out"
    assert (out / "report.html").is_file()
    table = RunTable.load(out / "table")
    assert len(table.losses) == 6 * 2
    assert (table.losses["loss"] < math.log(640)).all()
    design = table.design()
    assert set(design.n_params) == {
        rung_of(load_study(out), size).n_params for size in ("w16", "w32")
    }
    assert set(table.scores["task"]) >= {"bio_recall", "domain_loss:wiki", "domain_loss:bio"}
    run_study(str(study_file()))
    assert "all 6 runs are finished already" in capsys.readouterr().out

    folder = out / "runs" / "w16-mid-40k-s1"
    given = f"tokenizer: {{identifier: {out / 'data' / 'tokenizer.json'}}}\nbase: {folder}"
    edits = [
        (str(out), str(tmp_path / "mid")),
        *ONE_SIZE,
        ("tokenizer: {vocab_size: 600, characters: 200_000}", given),
        (STUDY[STUDY.index("mixtures:") : STUDY.index(" [no_mixture")].format(), SIX),
    ]
    run_study(str(study_file(edits, "mid.yaml")))
    cold = losses(folder)
    for name in "abcdef":
        warm = losses(tmp_path / "mid" / "runs" / f"w16-{name}-40k-s1")
        assert len(warm) == len(cold)
        assert warm[0] < cold[0] - 0.5
    assert len(RunTable.load(tmp_path / "mid" / "table").losses) == 6 * 2
