"""Files of a HuggingFace folder: tokenizer, settings and weights, written whole or not at all.

Files are written to a temporary folder beside the target and renamed once whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from olmo_mixlaw.errors import CheckpointError
from olmo_mixlaw.models.beginning import PROBE, added_start

SHARD_BYTES = 5 * 10**9


def write_tokenizer(
    folder: Path,
    vocabulary: Path,
    *,
    size: int,
    eos_token_id: int,
    pad_token_id: int | None,
    max_length: int,
) -> int | None:
    """Write the tokenizer and its settings; returns the token that it begins every text with.

    `size` is the number of rows of the model's embedding, `max_length` of tokens that it reads.

    OLMo's own tokenizers have none, so that none is named; end-of-text alone parts documents.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(vocabulary))
    if tokenizer.get_vocab_size() > size:
        raise CheckpointError(
            f"{vocabulary}: has {tokenizer.get_vocab_size()} tokens, the model {size}"
        )
    shutil.copyfile(vocabulary, folder / "tokenizer.json")
    bare = tokenizer.encode(PROBE, add_special_tokens=False).ids
    start = added_start(bare, tokenizer.encode(PROBE).ids)
    named = {"bos_token": start, "eos_token": eos_token_id, "pad_token": pad_token_id}
    special = {
        key: None if number is None else tokenizer.id_to_token(number)
        for key, number in named.items()
    }
    settings = {
        # What major 5 writes itself (TokenizersBackend) is unknown to major 4; both read this.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **{key: value for key, value in special.items() if value is not None},
    }
    write_json(folder / "tokenizer_config.json", settings)
    return start


def write_safetensors(folder: Path, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """In files of `SHARD_BYTES` at most, with an index when there is more than one."""
    from safetensors.torch import save_file

    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    size = total = 0

    def flush() -> None:
        save_file(shard, folder / f"{len(shards)}.part", metadata={"format": "pt"})
        shards.append(list(shard))
        shard.clear()

    for name, tensor in tensors:
        bytes_ = tensor.numel() * tensor.element_size()
        if shard and size + bytes_ > SHARD_BYTES:
            flush()
            size = 0
        shard[name] = tensor.clone(memory_format=torch.contiguous_format)
        size, total = size + bytes_, total + bytes_
    flush()
    if len(shards) == 1:
        os.replace(folder / "0.part", folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        os.replace(folder / f"{i}.part", folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` once the block ends without error; `out` must be free."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: exists and is not an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    folder.mkdir()
    try:
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file. Raises `CheckpointError`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds no settings by name")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    import yaml

    path.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")


def read_safetensors(folder: Path, shapes_alone: bool = False) -> dict[str, Tensor]:
    """Every tensor of a HuggingFace folder, in one file or several. Raises `CheckpointError`.

    With `shapes_alone` they have no data (device meta), and files are read no further than that.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read = _shapes if shapes_alone else load_file

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        listed = read_json(index).get("weight_map")
        if not isinstance(listed, dict):
            raise CheckpointError(f"{index}: weight_map: missing")
        names = sorted(set(map(str, listed.values())))
    else:
        names = ["model.safetensors"]
    found: dict[str, Tensor] = {}
    for name in names:
        # A file named in the index must lie in the folder itself.
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: no weights {name} in safetensors format{_pickles_in(folder)}"
            )
        try:
            found |= read(folder / name)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{folder / name}: can't be read: {error}") from None
    return found


def _shapes(file: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        return {
            name: torch.empty(tensors.get_slice(name).get_shape(), device="meta")
            for name in tensors.keys()  # noqa: SIM118  it is no mapping
        }


def _pickles_in(folder: Path) -> str:
    """The rest of a message about a folder without safetensors that has pickled weights."""
    pickled = sorted(file.name for file in folder.glob("*.bin"))
    if not pickled:
        return ""
    return (
        f"; {pickled[0]} is a pickle, which isn't opened: where you trust it, load it with "
        "transformers and save it again (model.save_pretrained(folder))"
    )
