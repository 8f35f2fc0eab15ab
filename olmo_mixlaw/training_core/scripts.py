"""A planned mixture in one's own OLMo-core script, with one line swapped.

OLMo-core has two kinds of script, those on `olmo_core.script_utils` and those on
`olmo_core.internal.experiment`. In both, the last line becomes

    main(on_mixture(build_config, "mixture.yaml"))
    main(config_builder=on_mixture(build_config, "mixture.yaml"))

which puts the mixture in the place of the script's data, and adds our callbacks. A script may
also name the configs itself: `MixtureDatasetConfig` with `MixtureLoaderConfig` for the first
kind, `MixtureSourceConfig` with `MixtureComposableLoaderConfig` for the second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch.distributed as dist
from olmo_core.aliases import PathOrStr
from olmo_core.data import (
    DataCollator,
    DataLoaderConfig,
    InstanceFilterConfig,
    NumpyDataLoaderConfig,
    NumpyDatasetConfig,
    TokenizerConfig,
)
from olmo_core.data.composable import ComposableDataLoaderConfig, InstanceSourceConfig
from olmo_core.distributed.parallel import get_dp_process_group
from olmo_core.distributed.utils import get_fs_local_rank, get_rank, get_world_size
from olmo_core.train import Duration
from olmo_core.train.common import DurationUnit
from olmo_core.utils import get_default_device

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.mixture.config import MixtureConfig
from olmo_mixlaw.mixture.opened import Mixture, open_mixture, steps_until_exhausted
from olmo_mixlaw.mixture.schedule import RunLength
from olmo_mixlaw.process import first_process_first
from olmo_mixlaw.training_core.callback import MixtureCallback
from olmo_mixlaw.training_core.data import MixtureDataLoader, check_batch
from olmo_mixlaw.training_core.endings import EndingsCallback


@dataclass(frozen=True)
class Asked:
    """A mixture that is opened once the batch is known; `file` names its sources."""

    file: str
    tokenizer: TokenizerConfig
    sequence_length: int
    max_duration: Duration
    memmap_dtype: str = "uint16"
    work_dir: str | None = None
    instance_filter: InstanceFilterConfig | None = None

    def run(self, global_batch_size: int) -> RunLength:
        """The run's length in batches of so many tokens. Raises `ConfigError` for epochs."""
        value, unit = self.max_duration.value, self.max_duration.unit
        if unit == DurationUnit.epochs:
            raise ConfigError(
                f"{self.file}: max_duration: {value} epochs, which a mixture doesn't have; give "
                "Duration.steps or Duration.tokens"
            )
        steps = value if unit == DurationUnit.steps else -(-value // global_batch_size)
        if steps < 1:
            raise ConfigError(f"{self.file}: max_duration: {value} leaves no step to train")
        return RunLength(steps, global_batch_size // self.sequence_length, self.sequence_length)

    def open(self, run: RunLength, seed: int) -> Mixture:
        """Raises `ConfigError` and `DataError`. All processes call it together."""
        if self.tokenizer.identifier is None:
            raise ConfigError(f"{self.file}: tokenizer.identifier: is missing")
        with first_process_first():
            mixture = open_mixture(
                MixtureConfig(file=self.file),
                {},
                run,
                tokenizer=self.tokenizer.identifier,
                vocab_size=self.tokenizer.padded_vocab_size(),
                eos_token_id=self.tokenizer.eos_token_id,
                seed=seed,
                memmap_dtype=self.memmap_dtype,
                where="script",
            )
        allowed = steps_until_exhausted(mixture, run)
        if allowed < run.n_steps:
            raise ConfigError(
                f"{mixture.where}: the sources end at step {allowed} of {run.n_steps} "
                "(repetition is stop); set max_duration to that"
            )
        return mixture

    def loader(
        self,
        *,
        global_batch_size: int,
        seed: int,
        work_dir: PathOrStr | None,
        group: dist.ProcessGroup | None,
        num_workers: int,
        prefetch_factor: int | None,
        target_device_type: str | None,
    ) -> MixtureDataLoader:
        if (folder := work_dir or self.work_dir) is None:
            raise ConfigError(f"{self.file}: data_loader.work_dir: is missing")
        world_size = get_world_size(group)
        check_batch(global_batch_size, self.sequence_length, world_size, self.file)
        run = self.run(global_batch_size)
        return MixtureDataLoader(
            self.open(run, seed),
            n_steps=run.n_steps,
            sequence_length=self.sequence_length,
            tokenizer=self.tokenizer,
            work_dir=folder,
            global_batch_size=global_batch_size,
            dp_world_size=world_size,
            dp_rank=get_rank(group),
            fs_local_rank=get_fs_local_rank(),
            num_workers=num_workers,
            prefetch_factor=prefetch_factor,
            target_device_type=target_device_type or get_default_device().type,
            instance_filter=self.instance_filter,
        )


@dataclass(kw_only=True)
class MixtureDatasetConfig(NumpyDatasetConfig):
    """In the place of a `NumpyFSLDatasetConfig`: the mixture in the file `mixture`.

    `max_duration` is that of the trainer's config; `tokenizer.identifier` is a tokenizers file.
    """

    mixture: str
    sequence_length: int
    max_duration: Duration
    memmap_dtype: str = "uint16"

    def build(self) -> Asked:
        for key in ("paths", "mix"):
            if getattr(self, key) is not None:
                raise ConfigError(
                    f"{self.mixture}: dataset.{key}: the mixture file names the sources; leave it"
                )
        return Asked(
            self.mixture,
            self.tokenizer,
            self.sequence_length,
            self.max_duration,
            self.memmap_dtype,
            self.work_dir,
            self.instance_filter_config,
        )


@DataLoaderConfig.register("mixlaw-numpy")
@dataclass
class MixtureLoaderConfig(NumpyDataLoaderConfig):
    """In the place of a `NumpyDataLoaderConfig`, for a `MixtureDatasetConfig`.

    `seed` is that of the mixture, unless its file says another.
    """

    def build(
        self,
        dataset: Asked,
        *,
        collator: DataCollator | None = None,
        mesh: dist.DeviceMesh | None = None,
        dp_process_group: dist.ProcessGroup | None = None,
    ) -> MixtureDataLoader:
        """Raises `ConfigError` and `DataError`."""
        if not isinstance(dataset, Asked):
            raise ConfigError("dataset: a MixtureLoaderConfig needs a MixtureDatasetConfig")
        return dataset.loader(
            global_batch_size=self.global_batch_size,
            seed=self.seed,
            work_dir=self.work_dir,
            group=_group(mesh, dp_process_group),
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch_factor,
            target_device_type=self.target_device_type,
        )


@dataclass
class MixtureSourceConfig(InstanceSourceConfig):
    """The one source of a composable dataset: the mixture in the file `mixture`."""

    mixture: str
    tokenizer: TokenizerConfig
    sequence_length: int
    max_duration: Duration
    memmap_dtype: str = "uint16"

    def build(self, work_dir: PathOrStr) -> Asked:
        return Asked(
            self.mixture,
            self.tokenizer,
            self.sequence_length,
            self.max_duration,
            self.memmap_dtype,
            str(work_dir),
        )


@DataLoaderConfig.register("mixlaw-composable")
@dataclass
class MixtureComposableLoaderConfig(ComposableDataLoaderConfig):
    """In the place of a `ComposableDataLoaderConfig`, for one `MixtureSourceConfig`.

    `seed` is that of the mixture, unless its file says another.
    """

    def build(
        self,
        *sources: Asked,
        collator: DataCollator | None = None,
        work_dir: PathOrStr | None = None,
        mesh: dist.DeviceMesh | None = None,
        dp_process_group: dist.ProcessGroup | None = None,
        tokenizer: TokenizerConfig | None = None,
        global_batch_size: int | None = None,
    ) -> MixtureDataLoader:
        """Raises `ConfigError` and `DataError`."""
        if len(sources) != 1 or not isinstance(sources[0], Asked):
            raise ConfigError("dataset: must be one MixtureSourceConfig, in a list")
        asked = sources[0]
        if self.generate_doc_lengths:
            raise ConfigError(
                f"{asked.file}: data_loader.generate_doc_lengths: a mixture's loader tells no "
                "lengths of documents; leave it out"
            )
        if (size := global_batch_size or self.global_batch_size) is None:
            raise ConfigError(f"{asked.file}: data_loader.global_batch_size: is missing")
        asked = replace(
            asked,
            tokenizer=tokenizer or self.tokenizer or asked.tokenizer,
            instance_filter=self.instance_filter_config,
        )
        return asked.loader(
            global_batch_size=size,
            seed=self.seed,
            work_dir=work_dir or self.work_dir,
            group=_group(mesh, dp_process_group),
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch_factor,
            target_device_type=self.target_device_type,
        )


def _group(
    mesh: dist.DeviceMesh | None, group: dist.ProcessGroup | None
) -> dist.ProcessGroup | None:
    return get_dp_process_group(mesh) if group is None and mesh is not None else group


def on_mixture(
    build_config: Callable[..., Any],
    mixture: str,
    *,
    tokenizer: str | None = None,
    interval: int = 10,
) -> Callable[..., Any]:
    """`build_config` of a script, with the mixture in the file `mixture` as its data.

    `tokenizer` is a tokenizers file, where the script's own identifier is a name on a hub;
    metrics.csv has a row every `interval` steps. Length, batch, seed and duration stay the
    script's, with what its command line changes. The rest of its data settings is not used.
    """

    def build(*args: Any, **kwargs: Any) -> Any:
        return mixed(build_config(*args, **kwargs), mixture, tokenizer, interval)

    return build


def mixed(config: Any, mixture: str, tokenizer: str | None = None, interval: int = 10) -> Any:
    """An `ExperimentConfig` of either kind, with its data from `mixture`; as `on_mixture`."""
    stock, dataset = config.data_loader, config.dataset
    composable = isinstance(stock, ComposableDataLoaderConfig)
    named = stock.tokenizer if composable else dataset.tokenizer
    if named is None:
        named = next((one.tokenizer for one in dataset if hasattr(one, "tokenizer")), None)
    if named is None:
        raise ConfigError(f"{mixture}: data_loader.tokenizer: is missing in the script's config")
    if tokenizer is not None:
        named = replace(named, identifier=tokenizer)
    length = config.train_module.max_sequence_length
    duration = config.trainer.max_duration
    ours = MixtureComposableLoaderConfig if composable else MixtureLoaderConfig
    kept = {one.name: getattr(stock, one.name) for one in fields(stock) if one.init}
    if composable:
        kept["tokenizer"] = named
        source = MixtureSourceConfig(mixture, named, length, duration)
    else:
        source = MixtureDatasetConfig(
            tokenizer=named,
            mixture=mixture,
            sequence_length=length,
            max_duration=duration,
            instance_filter_config=dataset.instance_filter_config,
            work_dir=dataset.work_dir,
        )
    trainer = config.trainer.with_callbacks(
        {"mixture": MixtureCallback(interval=interval), "endings": EndingsCallback()}
    )
    return config.replace(
        dataset=[source] if composable else source, data_loader=ours(**kept), trainer=trainer
    )
