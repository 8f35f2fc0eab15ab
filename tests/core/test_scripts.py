"""Users' own scripts, of both kinds that OLMo-core has, with one line swapped."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from core_run import BATCH, LENGTH, STEPS, model_config, tokenizer
from olmo_core.config import Config
from olmo_core.data import DataLoaderConfig, NumpyDataLoaderConfig, NumpyFSLDatasetConfig
from olmo_core.data.composable import (
    ComposableDataLoaderConfig,
    ConcatAndChunkInstanceSourceConfig,
    InstanceSourceConfig,
    NumpyDocumentSourceConfig,
)
from olmo_core.nn.transformer import TransformerConfig
from olmo_core.optim import AdamWConfig
from olmo_core.script_utils import ExperimentConfig
from olmo_core.train import Duration, TrainerConfig
from olmo_core.train.train_module import TrainModuleConfig, TransformerTrainModuleConfig

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.training_core.callback import MixtureCallback
from olmo_mixlaw.training_core.data import MixtureDataLoader
from olmo_mixlaw.training_core.scripts import (
    MixtureComposableLoaderConfig,
    MixtureDatasetConfig,
    MixtureLoaderConfig,
    MixtureSourceConfig,
    on_mixture,
)

# A script as OLMo-core's own in src/examples are: nothing in it knows of us but its last line.
PUBLIC = """
from olmo_core.data import NumpyDataLoaderConfig, NumpyFSLDatasetConfig, TokenizerConfig
from olmo_core.nn.transformer import TransformerConfig
from olmo_core.optim import AdamWConfig
from olmo_core.optim.scheduler import LinearWithWarmup
from olmo_core.script_utils import ExperimentConfig, main
from olmo_core.train import Duration, TrainerConfig
from olmo_core.train.callbacks import CheckpointerCallback, ConfigSaverCallback
from olmo_core.train.train_module import TransformerTrainModuleConfig


def build_config(opts, overrides):
    length = opts.sequence_length or 16
    tokenizer = TokenizerConfig(vocab_size=300, eos_token_id=0, pad_token_id=1,
                                identifier="somebody/a-name-on-a-hub")
    return ExperimentConfig(
        model=TransformerConfig.llama_like(
            d_model=16, vocab_size=tokenizer.padded_vocab_size(), n_layers=1, n_heads=2),
        dataset=NumpyFSLDatasetConfig(
            paths=["{data}/high.npy"], sequence_length=length, tokenizer=tokenizer,
            work_dir=opts.work_dir),
        data_loader=NumpyDataLoaderConfig(global_batch_size=8 * length, seed=5, num_workers=0),
        train_module=TransformerTrainModuleConfig(
            rank_microbatch_size=4 * length, max_sequence_length=length,
            optim=AdamWConfig(lr=1e-2), scheduler=LinearWithWarmup(warmup=2, alpha_f=0.1),
            max_grad_norm=1.0),
        trainer=TrainerConfig(
            save_folder=opts.save_folder, save_overwrite=True, max_duration=Duration.steps(12))
        .with_callback("checkpointer", CheckpointerCallback(
            save_interval=100, save_async=False, pre_train_checkpoint=False))
        .with_callback("config_saver", ConfigSaverCallback()),
    ).merge(overrides)


if __name__ == "__main__":
    {last}
"""
STOCK = "main(build_config)"
SWAPPED = (
    "from olmo_mixlaw.training_core.scripts import on_mixture; "
    'main(on_mixture(build_config, "{data}/ramp.yaml", tokenizer="{data}/tokenizer.json"))'
)


def public(tokens: Path, folder: Path, last: str) -> Path:
    script = folder / "train.py"
    last = last.replace("{data}", str(tokens))
    script.write_text(PUBLIC.replace("{data}", str(tokens)).replace("{last}", last))
    return script


def start(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_public_script_trains_on_a_mixture_with_one_line_swapped(
    tokens: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    # The command line is the script's own, and the mixture is as long as it says.
    arguments = ("--save-folder", str(folder), "--train-single", "--trainer.max_duration.value=6")
    done = start(public(tokens, tmp_path, SWAPPED), *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [6]
    record = json.loads((folder / "mixture.json").read_text())
    asked = [record["sources"][label]["asked_ratio"] for label in ("low", "high")]
    assert asked == pytest.approx([0.5, 0.5])  # the whole ramp in six steps
    kept = json.loads((folder / "step6" / "config.json").read_text())
    assert kept["dataset"]["_CLASS_"].endswith("scripts.MixtureDatasetConfig")
    assert kept["data_loader"]["type"] == "mixlaw-numpy"
    again = ExperimentConfig.from_dict(kept)
    assert isinstance(again.dataset, MixtureDatasetConfig)
    assert isinstance(again.data_loader, MixtureLoaderConfig)
    assert again.data_loader.global_batch_size == BATCH


@pytest.mark.slow
def test_the_script_itself_is_one_that_trains_without_us(tokens: Path, tmp_path: Path) -> None:
    script = public(tokens, tmp_path, STOCK)
    done = start(script, "--save-folder", str(tmp_path / "run"), "--train-single")
    assert done.returncode == 0, done.stderr[-3000:]


# A script as Ai2's own in src/scripts/train are, with the data they all default to, or composed.
INTERNAL = """
from functools import partial

from olmo_core.data import TokenizerConfig
from olmo_core.data.composable import (
    ComposableDataLoaderConfig, ConcatAndChunkInstanceSourceConfig, NumpyDocumentSourceConfig)
from olmo_core.internal.experiment import (
    DataComponents, build_config, build_default_data_components, main)
from olmo_core.nn.transformer import TransformerConfig
from olmo_core.optim import AdamWConfig
from olmo_core.train import Duration, TrainerConfig
from olmo_core.train.train_module import TransformerTrainModuleConfig

TOKENIZER = TokenizerConfig(
    vocab_size=300, eos_token_id=0, pad_token_id=1, identifier="allenai/dolma2-tokenizer")


def build_model_config(common):
    return TransformerConfig.llama_like(
        d_model=16, vocab_size=common.tokenizer.padded_vocab_size(), n_layers=1, n_heads=2)


def build_train_module_config(common):
    return TransformerTrainModuleConfig(
        rank_microbatch_size=4 * 16, max_sequence_length=common.max_sequence_length,
        optim=AdamWConfig(lr=1e-2))


def build_trainer_config(common):
    return TrainerConfig(
        save_folder=common.save_folder, save_overwrite=True, max_duration=Duration.steps(12))


def composed(common, **_):
    documents = NumpyDocumentSourceConfig(
        source_paths=["nowhere.npy"], tokenizer=common.tokenizer)
    chunks = ConcatAndChunkInstanceSourceConfig(
        sources=[documents], sequence_length=common.max_sequence_length)
    return DataComponents(
        dataset=[chunks],
        data_loader=ComposableDataLoaderConfig(
            tokenizer=common.tokenizer, work_dir=common.work_dir,
            global_batch_size=common.global_batch_size, seed=5))


if __name__ == "__main__":
    from olmo_mixlaw.training_core.scripts import on_mixture

    config_builder = partial(
        build_config, data_config_builder={data}, model_config_builder=build_model_config,
        train_module_config_builder=build_train_module_config,
        trainer_config_builder=build_trainer_config, tokenizer=TOKENIZER,
        global_batch_size=8 * 16, max_sequence_length=16)
    main(config_builder=on_mixture(
        config_builder, "{tokens}/ramp.yaml", tokenizer="{tokens}/tokenizer.json"))
"""
needs_beaker = pytest.mark.skipif(
    importlib.util.find_spec("beaker") is None, reason="needs beaker, as Ai2's own scripts do"
)


@needs_beaker
@pytest.mark.parametrize("data", ["build_default_data_components", "composed"])
def test_an_internal_script_trains_on_a_mixture_with_one_line_swapped(
    tokens: Path, tmp_path: Path, data: str
) -> None:
    script, folder = tmp_path / "train.py", tmp_path / "run"
    script.write_text(INTERNAL.replace("{tokens}", str(tokens)).replace("{data}", data))
    save = f"--trainer.save_folder={folder}"
    done = start(script, "train_single", "a-run", "local", save, f"--data_loader.work_dir={folder}")
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((folder / "mixture.json").read_text())
    asked = [record["sources"][label]["asked_ratio"] for label in ("low", "high")]
    assert asked == pytest.approx([0.5, 0.5])
    assert (folder / "step12" / "config.json").is_file()


# The same config field by field, for where `olmo_core.internal.experiment` can't be imported.


@dataclass
class InternalConfig(Config):
    run_name: str
    model: TransformerConfig
    dataset: NumpyFSLDatasetConfig | list[InstanceSourceConfig]
    data_loader: DataLoaderConfig
    train_module: TrainModuleConfig
    trainer: TrainerConfig
    init_seed: int = 12536


def internal(tokens: Path, folder: Path, overrides: list[str]) -> InternalConfig:
    named = tokenizer(tokens)
    documents = NumpyDocumentSourceConfig(source_paths=["nowhere.npy"], tokenizer=named)
    return InternalConfig(
        run_name="test",
        model=model_config(),
        dataset=[ConcatAndChunkInstanceSourceConfig(sources=[documents], sequence_length=LENGTH)],
        data_loader=ComposableDataLoaderConfig(
            tokenizer=named, work_dir=str(folder), global_batch_size=BATCH, seed=5
        ),
        train_module=TransformerTrainModuleConfig(
            rank_microbatch_size=BATCH, max_sequence_length=LENGTH, optim=AdamWConfig(lr=1e-2)
        ),
        trainer=TrainerConfig(save_folder=str(folder), max_duration=Duration.tokens(STEPS * BATCH)),
    ).merge(overrides)


def build(config: Any) -> MixtureDataLoader:
    """As `_build_data_loader` of olmo_core.internal.experiment does."""
    if isinstance(config.data_loader, NumpyDataLoaderConfig):
        return config.data_loader.build(config.dataset.build(), dp_process_group=None)
    assert isinstance(config.data_loader, ComposableDataLoaderConfig)
    work_dir = config.data_loader.work_dir
    assert all(isinstance(source, InstanceSourceConfig) for source in config.dataset)
    sources = [source.build(work_dir) for source in config.dataset]
    return config.data_loader.build(*sources, dp_process_group=None)


def test_an_internal_style_config_becomes_a_mixture(tokens: Path, tmp_path: Path) -> None:
    swapped = on_mixture(internal, str(tokens / "ramp.yaml"))(tokens, tmp_path, ["init_seed=7"])
    assert swapped.init_seed == 7
    (source,) = swapped.dataset
    assert isinstance(source, MixtureSourceConfig)
    assert isinstance(swapped.data_loader, MixtureComposableLoaderConfig)
    assert isinstance(swapped.trainer.callbacks["mixture"], MixtureCallback)
    loader = build(swapped)
    loader.reshuffle(epoch=1)
    assert len(loader) == STEPS
    assert next(iter(loader))["input_ids"].shape == (8, LENGTH)
    again = InternalConfig.from_dict(swapped.as_config_dict())
    assert build(again).described == loader.described


def test_both_kinds_of_script_read_the_same_examples(tokens: Path, tmp_path: Path) -> None:
    composable = build(on_mixture(internal, str(tokens / "ramp.yaml"))(tokens, tmp_path, []))
    stock = MixtureDatasetConfig(
        tokenizer=tokenizer(tokens),
        mixture=str(tokens / "ramp.yaml"),
        sequence_length=LENGTH,
        max_duration=Duration.steps(STEPS),
        work_dir=str(tmp_path),
    )
    loader = MixtureLoaderConfig(global_batch_size=BATCH, seed=5).build(stock.build())
    assert (loader.batch(3)["input_ids"] == composable.batch(3)["input_ids"]).all()


@needs_beaker
def test_the_internal_config_has_the_fields_that_ours_stands_for() -> None:
    from olmo_core.internal.experiment import ExperimentConfig as Internal

    theirs = {one.name for one in fields(Internal)}
    assert {one.name for one in fields(InternalConfig)} <= theirs


def dataset(tokens: Path, **changes: Any) -> MixtureDatasetConfig:
    known = {
        "tokenizer": tokenizer(tokens),
        "mixture": str(tokens / "ramp.yaml"),
        "sequence_length": LENGTH,
        "max_duration": Duration.steps(STEPS),
        "work_dir": "work",
    }
    return MixtureDatasetConfig(**{**known, **changes})


def loader_of(config: MixtureDatasetConfig) -> MixtureDataLoader:
    return MixtureLoaderConfig(global_batch_size=BATCH, seed=5).build(config.build())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": ["high.npy"]}, "dataset.paths: the mixture file names the sources"),
        ({"max_duration": Duration.epochs(1)}, "1 epochs, which a mixture doesn't have"),
        ({"max_duration": Duration.steps(0)}, "max_duration: 0 leaves no step"),
        ({"sequence_length": 24}, "128 tokens are not whole sequences of 24"),
        ({"work_dir": None}, "data_loader.work_dir: is missing"),
        ({"mixture": "none.yaml"}, "none.yaml"),
    ],
)
def test_mistakes_are_found_before_training(tokens: Path, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loader_of(dataset(tokens, **changes))


def test_lengths_of_documents_are_refused(tokens: Path, tmp_path: Path) -> None:
    source = MixtureSourceConfig(
        str(tokens / "ramp.yaml"), tokenizer(tokens), LENGTH, Duration.steps(STEPS)
    ).build(tmp_path)
    loader = MixtureComposableLoaderConfig(global_batch_size=BATCH, generate_doc_lengths=True)
    with pytest.raises(ConfigError, match="generate_doc_lengths: a mixture's loader"):
        loader.build(source, work_dir=tmp_path)
    with pytest.raises(ConfigError, match="must be one MixtureSourceConfig"):
        loader.build(source, source, work_dir=tmp_path)
