"""What only shows on GPUs, simulated on a CPU: shards over gloo, spies in the place of a device."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("olmo")

import torch.distributed as dist
from olmo.config import CheckpointType, FSDPConfig, FSDPWrapStrategy
from olmo.model import OLMo
from olmo.torch_util import seed_all
from torch.distributed.fsdp import FullyShardedDataParallel

from olmo_mixlaw import process
from olmo_mixlaw.mixture.schedule import RunLength
from olmo_mixlaw.models.olmo import MoEOLMo, build_model
from olmo_mixlaw.training import launch, loader, trainer
from olmo_mixlaw.training.config import MixTrainConfig, load
from olmo_mixlaw.training.exact_head import exact_logits
from olmo_mixlaw.training.model import build_distributed, n_params
from olmo_mixlaw.training.process import process_group
from olmo_mixlaw.training.tally import Tally
from olmo_mixlaw.training.trainer import MixTrainer

DENSE = {
    "d_model": 16,
    "n_heads": 2,
    "n_layers": 2,
    "mlp_hidden_size": 32,
    "vocab_size": 64,
    "max_sequence_length": 16,
    "init_fn": "mitchell",
    "weight_tying": False,
    "include_bias": False,
}
EXPERTS = {
    **DENSE,
    "activation_type": "swiglu",
    "moe": {"num_experts": 8, "top_k": 2, "expert_size": 8},
}
MODELS = {"dense": DENSE, "moe": EXPERTS}
WRAPPINGS = [FSDPWrapStrategy.by_block, FSDPWrapStrategy.by_block_and_size]


def config_of(kind: str, device: str, wrapping: FSDPWrapStrategy) -> MixTrainConfig:
    config = MixTrainConfig()
    model = build_model({**MODELS[kind], "init_device": "meta"}, init_params=False)
    config.model = model.config
    config.model.init_device = device
    config.distributed_strategy = "fsdp"  # type: ignore[assignment]
    config.fsdp = FSDPConfig(wrapping_strategy=wrapping, use_orig_params=True)
    config.precision = "fp32"
    return config


def whole_state(wrapped: nn.Module) -> dict[str, torch.Tensor]:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(wrapped, options=StateDictOptions(full_state_dict=True))


def alone(kind: str, device: str) -> OLMo:
    """The model of one process that shards nothing."""
    seed_all(7)
    model = build_model({**MODELS[kind], "init_device": device})
    if device == "meta":
        model.to_empty(device="cpu")
        model.reset_parameters()
    return model


def _shard(rank: int, folder: str, world_size: int) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    for kind in MODELS:
        for wrapping in WRAPPINGS:
            for device in ("cpu", "meta"):
                seed_all(7)
                config = config_of(kind, device, wrapping)
                model = build_model(config.model)
                counts = (n_params(model), model.num_fwd_flops, model.num_bck_flops)
                wrapped = build_distributed(config, model, torch.device("cpu"))
                assert (model.num_fwd_flops, model.num_bck_flops) == counts[1:]
                state = whole_state(wrapped)
                if rank == 0:
                    torch.save((counts, state), f"{folder}/{kind}-{wrapping}-{device}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_shards_hold_the_weights_and_counts_of_one_process(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_shard, (str(tmp_path), 4), nprocs=4)
    for kind, device in itertools.product(MODELS, ("cpu", "meta")):
        one = alone(kind, device)
        expected = one.state_dict()
        for wrapping in WRAPPINGS:
            path = tmp_path / f"{kind}-{wrapping}-{device}.pt"
            counts, state = torch.load(path, weights_only=True)
            assert counts == (n_params(one), one.num_fwd_flops, one.num_bck_flops), path.name
            assert min(counts) > 0
            assert state.keys() == expected.keys()
            for name, weight in expected.items():
                assert torch.equal(state[name], weight), (path.name, name)


def test_an_empty_model_gets_its_values_whole_and_keeps_its_methods() -> None:
    with process_group(on_gpu=False):
        seed_all(7)
        config = config_of("moe", "meta", FSDPWrapStrategy.by_block)
        model = build_model(config.model)
        wrapped = build_distributed(config, model, torch.device("cpu"))
        assert isinstance(wrapped, FullyShardedDataParallel)
        expected = alone("moe", "meta").state_dict()
        for name, weight in whole_state(wrapped).items():
            assert torch.equal(weight, expected[name]), name
        assert isinstance(model, MoEOLMo)
        for block in model.transformer["blocks"]:
            assert "reset_parameters" not in vars(block.module)


class Host(TorchDispatchMode):
    """Counts what makes the host wait for a device: reading a number out of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.read: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "bincount", "nonzero", "unique_dim", "_unique2"):
            self.read[name] += 1
        return func(*args, **(kwargs or {}))


def test_a_moe_step_reads_no_number_from_the_device() -> None:
    """The grouped path; a loop over experts has to know how many tokens each has."""
    moe = {**EXPERTS["moe"], "sequence_balance_weight": 0.1}
    model = build_model({**EXPERTS, "moe": moe})
    tally = Tally(None, model, torch.device("cpu"))
    with Host() as host:
        tally.start_step()
        model(torch.randint(64, (2, 16))).logits.float().logsumexp(-1).sum().backward()
        tally.add_load()
    assert tally.step.sum() == 2 * 2 * 16 * 2  # layers x experts a token x tokens
    assert not host.read


def test_our_part_of_a_step_is_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside OLMo's own, `train_batch` copies one vector to the host and reads nothing else."""
    ours = object.__new__(MixTrainer)
    ours.device, ours.signal = torch.device("cpu"), 15
    ours.tally = Tally(None, nn.Identity(), ours.device)
    loss = torch.tensor(2.5)
    monkeypatch.setattr(trainer.Trainer, "train_batch", lambda self, batch: (loss, None))
    with Host() as host:
        assert ours.train_batch({}) == (loss, None)
    assert not host.read
    assert ours._stop_after_step


def test_sums_by_source_are_those_of_a_loop() -> None:
    tally = Tally(None, nn.Identity(), torch.device("cpu"))
    tally.n_sources, tally.sources = 3, torch.arange(3).unsqueeze(1)
    tally.step = torch.zeros(6, dtype=torch.float64)
    losses = torch.rand(5, 7)
    sources, kept = torch.tensor([2, 0, 2, 2, 0]), torch.tensor([1, 1, 0, 1, 1])
    tally.add(sources, losses * kept.unsqueeze(1), kept)
    tally.add(sources, losses * kept.unsqueeze(1), kept)
    expected = np.zeros((2, 3))
    for source, row, there in zip(sources, losses, kept, strict=True):
        if there:
            expected[:, source] += 2 * np.array([row.double().sum(), 7])
    np.testing.assert_allclose(tally.step.view(2, 3), expected, rtol=1e-12)


def test_others_wait_for_the_first_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    new_group = dist.new_group

    def spied(*args: Any, **kwargs: Any) -> Any:
        made.append(kwargs)
        return new_group(*args, **kwargs)

    monkeypatch.setattr(dist, "new_group", spied)
    with process_group(on_gpu=False):
        with process.first_process_first():
            assert made == []  # alone, nobody waits; nothing is left to a fork of this process
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        for _ in range(2):
            with process.first_process_first():
                pass
    assert made == [{"backend": "gloo", "timeout": process.PATIENCE}]
    assert process.PATIENCE.days >= 1


def test_nobody_waits_while_exposures_are_counted(
    monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]
) -> None:
    order: list[str] = []
    written = launch.accounting.write
    monkeypatch.setattr(launch, "barrier", lambda: order.append("barrier"))
    monkeypatch.setattr(
        launch.accounting, "write", lambda *args: (order.append("write"), written(*args))[1]
    )
    launch.train(write())
    assert order[-1] == "write"
    assert "barrier" in order


def test_workers_are_spawned_beside_a_gpu(
    monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]
) -> None:
    config = load(write())
    mixture = launch._open(config, RunLength(12, 8, 16), "run.yaml")
    assert mixture is not None
    config.data.num_workers = 2
    plain = [batch["input_ids"] for batch in loader.build_loader(config, mixture, 3)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    beside = loader.build_loader(config, mixture, 3)
    monkeypatch.undo()
    assert beside.multiprocessing_context.get_start_method() == "spawn"
    assert all(torch.equal(a["input_ids"], b) for a, b in zip(beside, plain, strict=True))


@pytest.mark.parametrize(
    ("wrapper", "world_size", "kind"),
    [
        (FullyShardedDataParallel, 8, CheckpointType.sharded),
        (FullyShardedDataParallel, 1, CheckpointType.unsharded),
        (nn.Module, 8, CheckpointType.unsharded),
    ],
)
def test_a_stopped_run_saves_its_shards_as_they_lie(
    monkeypatch: pytest.MonkeyPatch, wrapper: type, world_size: int, kind: CheckpointType
) -> None:
    saved: list[CheckpointType] = []
    monkeypatch.setattr(trainer, "get_world_size", lambda: world_size)
    monkeypatch.setattr(MixTrainer, "save_checkpoint", lambda self, kind: saved.append(kind))
    ours = object.__new__(MixTrainer)
    ours.cfg = MixTrainConfig(save_folder="run")
    ours.global_step, ours.dist_model = 3, object.__new__(wrapper)
    assert "step 3" in ours._save_last()
    assert saved == [kind]


@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_an_evaluation_are_exact_under_autocast(tied: bool) -> None:
    torch.manual_seed(0)
    model = build_model({**DENSE, "weight_tying": tied}).eval()
    hidden: list[torch.Tensor] = []
    model.transformer.ln_f.register_forward_hook(lambda _, __, out: hidden.append(out))
    tokens = torch.randint(64, (4, 16))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(tokens).logits
        with exact_logits(model):
            exact = model(tokens).logits
        again = model(tokens).logits
    last = model.transformer.wte if tied else model.transformer.ff_out
    expected = hidden[1].float() @ last.weight.T
    torch.testing.assert_close(exact, expected)
    assert exact.dtype == torch.float32
    assert rough.dtype == again.dtype == torch.bfloat16
    assert (exact != exact.bfloat16()).any()
