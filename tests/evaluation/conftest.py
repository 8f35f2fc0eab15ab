"""Tiny models that the tests of evaluation share: an OLMo checkpoint, a HuggingFace folder,
and an oracle that knows chosen texts by heart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from olmo_mixlaw.datasets import open_dataset, train_tokenizer
from olmo_mixlaw.evaluation.language_model import LanguageModel
from olmo_mixlaw.evaluation.loading import load_model

BIO = "mixlaw:biography?n=12&pools=major:6,birth_city:8,university:8,employer:8&templates=2"
CODE = "mixlaw:text?corpus=code"


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    dataset = open_dataset(BIO)
    train_tokenizer((dataset.document(i) for i in range(300)), 400, path)
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Path:
    """An unsharded checkpoint of OLMo's trainer with random weights and a record of its data."""
    pytest.importorskip("olmo")
    from olmo.config import TrainConfig
    from olmo.model import OLMo

    config = TrainConfig.new(
        model={
            "d_model": 32,
            "n_heads": 2,
            "n_layers": 2,
            "mlp_ratio": 2,
            "vocab_size": 400,
            "embedding_size": 512,
            "max_sequence_length": 96,
            "eos_token_id": 0,
            "pad_token_id": 0,
            "rope": True,
            "weight_tying": True,
            "layer_norm_type": "rms",
            "activation_type": "swiglu",
            "init_device": "cpu",
            "attention_dropout": 0.0,
            "residual_dropout": 0.0,
            "embedding_dropout": 0.0,
            "init_std": 0.2,
            "include_bias": False,
            "bias_for_layer_norm": False,
        },
        tokenizer={"identifier": str(tokenizer_file)},
        data={"datasets": {"bio": [BIO], "code": [CODE]}},
    )
    folder = tmp_path_factory.mktemp("run") / "step7-unsharded"
    folder.mkdir()
    torch.manual_seed(0)
    torch.save(OLMo(config.model).state_dict(), folder / "model.pt")
    config.save(folder / "config.yaml")
    return folder


@pytest.fixture(scope="session")
def llama(
    tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path
) -> Callable[[int, int], Path]:
    """Makes a Llama-shaped folder with random weights by seed, and a context, and the tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    def make(seed: int, context: int) -> Path:
        folder = tmp_path_factory.mktemp("hf")
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=400,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            initializer_range=0.2,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
        end = "<|endoftext|>"
        PreTrainedTokenizerFast(
            tokenizer_file=str(tokenizer_file), eos_token=end, bos_token=end
        ).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def hugging_face(llama: Callable[[int, int], Path]) -> Path:
    """A Llama-shaped folder with random weights and the same tokenizer."""
    return llama(1, 96)


@pytest.fixture(scope="session", params=["olmo", "hugging_face"])
def model(request: pytest.FixtureRequest, checkpoint: Path, hugging_face: Path) -> LanguageModel:
    folder = checkpoint if request.param == "olmo" else hugging_face
    return load_model(folder, device="cpu")


class Oracle(LanguageModel):
    """Says what the `texts` say next wherever the last tokens stand in one of them.

    Where they stand in none, it says token 1. Its logits are 10 for what it says, 0 elsewhere.
    """

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], memory: int = 64) -> None:
        super().__init__(tokenizer)
        self.max_length, self.vocab_size, self.eos_token_id = 512, tokenizer.get_vocab_size(), 0
        self.device, self.dtype = torch.device("cpu"), "float32"
        self.config = {"model": "oracle", "model_path": "nowhere", "model_type": "oracle"}
        self.memory = memory
        self.next: dict[tuple[int, ...], int] = {}
        for ids in self.encode(texts):
            for end in range(1, len(ids)):
                for size in range(1, memory + 1):
                    if end >= size:
                        self.next[tuple(ids[end - size : end])] = ids[end]

    def read(
        self, ids: torch.Tensor, cache: Any = None, keep_cache: bool = False
    ) -> tuple[torch.Tensor, Any]:
        read = ids if cache is None else torch.cat([cache, ids], dim=1)
        logits = torch.zeros(*ids.shape, self.vocab_size)
        offset = read.shape[1] - ids.shape[1]
        for row, sequence in enumerate(read.tolist()):
            for position in range(ids.shape[1]):
                seen = sequence[: offset + position + 1]
                logits[row, position, self._say(seen)] = 10.0
        return logits, read

    def _say(self, seen: Sequence[int]) -> int:
        for size in range(self.memory, 0, -1):
            found = self.next.get(tuple(seen[-size:])) if len(seen) >= size else None
            if found is not None:
                return found
        return 1

    def take(self, cache: Any, rows: torch.Tensor) -> Any:
        return cache.index_select(0, rows)


@pytest.fixture
def oracle(tokenizer_file: Path) -> Callable[[Sequence[str]], LanguageModel]:
    """Makes a model that knows the given texts by heart."""
    return lambda texts: Oracle(Tokenizer.from_file(str(tokenizer_file)), texts)
