"""Load a model to score from its folder.

Folders of three kinds are read: a checkpoint of OLMo's trainer (`config.yaml`, `model.pt`), dense
or with our mixture of experts, one of OLMo-core (`config.json`, `model_and_optim/`), and a
HuggingFace folder (`config.json`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmo_mixlaw.carried import carried
from olmo_mixlaw.errors import CheckpointError, ConfigError, first_line, unknown_name
from olmo_mixlaw.evaluation.language_model import (
    HuggingFaceModel,
    LanguageModel,
    OlmoModel,
    max_length_of,
)
from olmo_mixlaw.evaluation.provenance import EXPORTED
from olmo_mixlaw.models.beginning import PROBE, added_start
from olmo_mixlaw.schema import read_mapping
from olmo_mixlaw.training_core.saved import is_checkpoint, require_core

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

DTYPES = ("float32", "bfloat16")
# Weights that PyTorch pickled, in a HuggingFace folder.
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
NO_PICKLES = (
    "is a pickle that holds more than weights, which could run code, and isn't opened; where you "
    "trust it, load it yourself and save it again as"
)


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
    if is_checkpoint(path):
        require_core(path)
        from olmo_mixlaw.evaluation.core_model import load_core

        return load_core(path, tokenizer, target, dtype, _identity(path, "olmo-core", 0))
    if (path / "config.json").is_file():
        return _load_hugging_face(path, tokenizer, target, dtype)
    if (path / "train").is_dir() or (path / "model").is_dir():
        raise CheckpointError(f"{path}: a sharded checkpoint; unshard it first")
    raise CheckpointError(
        f"{path}: holds no model: expected config.yaml and model.pt (OLMo), config.json and "
        "model_and_optim (OLMo-core), or config.json (HuggingFace)"
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
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path / 'model.pt'}: {NO_PICKLES} torch.save(model.state_dict(), ...)"
        ) from None
    except (RuntimeError, OSError, EOFError) as error:
        raise CheckpointError(
            f"{path / 'model.pt'}: doesn't fit config.yaml ({first_line(error)})"
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
    if not name.is_absolute() and (file := carried(name)):
        return Tokenizer.from_file(str(file))
    raise CheckpointError(
        f"{path}: tokenizer {str(identifier)!r} is not there; give its file with --tokenizer"
    )


def _load_hugging_face(
    path: Path, tokenizer: str | Path | None, device: torch.device, dtype: str
) -> LanguageModel:
    import pickle

    import torch

    try:
        from safetensors import SafetensorError
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
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{_pickled(path)}: {NO_PICKLES} safetensors (model.save_pretrained(folder))"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: {first_line(error)}") from None
    except (RuntimeError, EOFError, SafetensorError) as error:
        raise CheckpointError(f"{_weights(path)}: can't be read: {first_line(error)}") from None
    if not getattr(fast, "is_fast", False):
        raise CheckpointError(f"{folder}: its tokenizer has no tokenizer.json")
    eos = fast.eos_token_id if fast.eos_token_id is not None else model.config.eos_token_id
    if isinstance(eos, list):
        eos = eos[0]
    if eos is None:
        raise CheckpointError(f"{folder}: names no end-of-text token (eos_token_id)")
    config = _identity(path, "hf", max_length_of(model.config))
    torch.nn.Module.to(model, device)
    start = None if (path / EXPORTED).is_file() else _start_of(fast)
    start = None if start == int(eos) else start
    return HuggingFaceModel(model, fast.backend_tokenizer, config, int(eos), start)


def _pickled(path: Path) -> str:
    """The pickled weights of a HuggingFace folder, for a message: one file, or the folder's."""
    files = sorted(file for pattern in PICKLED for file in path.glob(pattern))
    more = f" (and {len(files) - 1} beside it)" if len(files) > 1 else ""
    return f"{files[0]}{more}" if files else str(path)


def _weights(path: Path) -> str:
    """The one file of weights of a HuggingFace folder, or the folder where there are several."""
    files = [*path.glob("*.safetensors"), *path.glob("*.bin")]
    return str(files[0] if len(files) == 1 else path)


def _start_of(tokenizer: Any) -> int | None:
    """The token that the tokenizer puts before every text by itself; None where it puts none.

    What our trainer made was trained without, whatever its tokenizer does: text is encoded bare.
    """
    bare = tokenizer(PROBE, add_special_tokens=False).input_ids
    return added_start(bare, tokenizer(PROBE).input_ids)


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
