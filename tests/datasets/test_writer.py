"""Memmaps: the same bytes however they are written, whole or not at all, and OLMo reads them."""

import json
import resource
import subprocess
import sys

import numpy as np
import pytest

from olmo_mixlaw.datasets import open_dataset, open_tokens, writer
from olmo_mixlaw.datasets.memmap import read_metadata
from olmo_mixlaw.datasets.token_file import MOST_PLAN, PLAN
from olmo_mixlaw.datasets.writer import write_shards
from olmo_mixlaw.errors import DataError

URI = "mixlaw:biography?n=300&seed=2&pools=small"


@pytest.fixture
def write(byte_tokenizer, tmp_path):
    def call(name="out", uri=URI, **options):
        options = {"eos_token_id": 0, "documents": 700, "shard_tokens": 15_000} | options
        return write_shards(uri, byte_tokenizer, tmp_path / name, **options)

    return call


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_bytes_are_the_same_for_any_number_of_processes(write, tmp_path):
    for processes in (1, 2, 4):
        write(str(processes), processes=processes, shard_tokens=6000)
    one, two, four = (contents(tmp_path / name) for name in ("1", "2", "4"))
    assert len(one) > 6
    assert one == two == four


def test_tokens_are_the_encoded_documents_and_decode_to_them(write, byte_tokenizer):
    paths = write().paths
    assert len(paths) > 2
    decoded = []
    for path in paths:
        tokens = np.memmap(path, np.uint16, mode="r")
        bounds = read_metadata(path)
        assert bounds[0, 0] == 0
        assert bounds[-1, 1] == tokens.size
        assert (tokens[bounds[:, 1] - 1] == 0).all()
        decoded += [byte_tokenizer.decode(tokens[a : b - 1]) for a, b in bounds]
    assert decoded == list(open_dataset(URI).documents(0, 700))


def test_olmo_reads_the_memmaps_as_we_do(write, byte_tokenizer):
    memmap_dataset = pytest.importorskip("olmo.data.memmap_dataset")
    paths = write().paths
    theirs = memmap_dataset.MemMapDataset(*paths, chunk_size=64, memmap_dtype=np.uint16)
    ours = open_tokens(
        [str(paths[0].parent)], tokenizer=byte_tokenizer, sequence_length=64, eos_token_id=0, seed=0
    )
    assert len(theirs) == ours.n_sequences
    for index in (0, 5, len(theirs) // 2, len(theirs) - 1):
        assert theirs[index]["input_ids"].tolist() == ours.sequence(index).tolist()


def test_a_second_run_writes_only_what_is_missing(write, tmp_path):
    first = write()
    whole = contents(tmp_path / "out")
    first.paths[1].unlink()
    again = write()
    assert again.skipped == len(first.paths) - 1
    assert 0 < again.tokens < first.tokens
    assert contents(tmp_path / "out") == whole
    assert write().tokens == 0


def test_a_killed_run_goes_on_to_the_same_bytes(write, tmp_path, monkeypatch):
    write("whole")

    def killed(*args):
        if args[-1] == 2:
            raise KeyboardInterrupt
        return real(*args)

    real = writer._write_shard
    monkeypatch.setattr(writer, "_write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert len(list((tmp_path / "out").glob("*.npy"))) == 2
    monkeypatch.undo()
    write()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_text_is_written_in_one_pass_or_by_slices_alike(write, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"line {i} has its own words\n" for i in range(900)))
    uri = f"mixlaw:text?path={lines}&unit=line"
    result = write("one", uri, documents=None, shard_tokens=2000)
    dataset = open_dataset(uri)
    assert result.documents == dataset.n_documents
    assert len(result.paths) > 2
    result.paths[1].unlink()
    write("one", uri, documents=None, shard_tokens=2000)
    whole = np.concatenate([np.fromfile(path, np.uint16) for path in result.paths])
    assert (whole == 0).sum() == dataset.n_documents


FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
from olmo_mixlaw.cli.app import app, run
sys.exit(run(app, sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on file sizes here")
def test_a_full_disk_leaves_nothing_half_written(byte_tokenizer, tmp_path):
    tokenizer, out = tmp_path / "t.json", tmp_path / "out"
    byte_tokenizer.save(str(tokenizer))
    command = ["data", "make", URI, str(out), "--tokenizer", str(tokenizer), "--documents", "900"]
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *command], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert "part-00000.npy: the disk is full" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in out.iterdir() if path.suffix != ".gz"] == ["plan.json"]


def test_bad_requests_are_refused_before_any_work(write, tmp_path):
    with pytest.raises(DataError, match="has no end: say how many"):
        write(documents=None)
    with pytest.raises(DataError, match="give one of the two"):
        write(tokens=100)
    with pytest.raises(DataError, match="uint8 holds 256 token ids, the vocabulary has 600"):
        write(dtype="uint8")
    with pytest.raises(DataError, match=r"about \d+\.\d GB are needed and"):
        write(documents=None, tokens=10**17)
    with pytest.raises(DataError, match="processes: 0 is below 1"):
        write(processes=0)
    assert not (tmp_path / "out" / "plan.json").exists()
    write()
    with pytest.raises(DataError, match=r"holds other tokens .*documents 700"):
        write(documents=800)
    other = tmp_path / "other"
    other.mkdir()
    (other / "web.npy").write_bytes(b"1234")
    with pytest.raises(DataError, match="token files of another origin"):
        write("other")


def test_a_tokenizer_that_loses_text_is_refused(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    lossy = Tokenizer(models.WordLevel({"[UNK]": 0, "was": 1}, unk_token="[UNK]"))
    lossy.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(DataError, match="doesn't round-trip"):
        write_shards(URI, lossy, tmp_path / "out", eos_token_id=0, documents=3)
    assert not (tmp_path / "out").exists()


def test_the_plan_says_what_the_folder_holds(write, tmp_path):
    result = write()
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["uri"] == URI
    assert plan["documents"] == result.documents == 700
    assert plan["dtype"] == "uint16"


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"uri": 1}'])
def test_a_plan_that_is_none_of_ours_is_refused(write, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / PLAN).write_text(text)
    message = "not a plan of ours" if text != '{"uri": 1}' else "holds other tokens .*uri 1"
    with pytest.raises(DataError, match=message):
        write()


def test_a_plan_without_end_is_not_read(write, tmp_path):
    write()
    path = tmp_path / "out" / PLAN
    plan = path.read_text()
    path.write_text(plan + " " * (MOST_PLAN - len(plan)))
    assert write().skipped > 0
    with open(path, "w") as file:
        file.write(plan)
        file.truncate(1 << 40)  # a hole, which takes no room on the disk but all of the memory
    with pytest.raises(DataError, match=r"plan\.json: not a plan of ours"):
        write()


def test_files_that_hold_no_tokens_are_named(byte_tokenizer, tmp_path):
    saved, odd = tmp_path / "saved.npy", tmp_path / "odd.npy"
    np.save(saved, np.arange(100, dtype=np.uint16))
    odd.write_bytes(b"abc")
    for path, message in ((saved, "written by numpy.save"), (odd, "3 bytes are no whole number")):
        with pytest.raises(DataError, match=message):
            open_tokens(
                [str(path)], tokenizer=byte_tokenizer, sequence_length=8, eos_token_id=0, seed=0
            )
