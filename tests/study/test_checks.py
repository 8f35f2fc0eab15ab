"""What would end a study after its training is said when it is planned."""

import json

import pytest

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.study.checks import check_name, possible_laws
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.plan import plan
from olmo_mixlaw.study.scoring import recalls, tasks

MIXTURES = """  low: {wiki: 0.8, bio: 0.2}
  mid: {wiki: 0.5, bio: 0.5}
  high: {wiki: 0.3, bio: 0.7}
"""


def refused(path, capsys, *overrides):
    """The one line with which `plan` refuses a study."""
    assert cli.run(cli.app, ["study", "plan", str(path), *overrides]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds=[3,1,3]", "seeds: 3 stands there twice"),
        ("seeds=-1", "seeds: -1: expected 0 to"),
        ("sizes=[w16,w16,w32]", "sizes: w16 stands there twice"),
        ("laws=[transfer,transfer]", "laws: transfer stands there twice"),
        ("tokens=[40_000,40_100]", "tokens: 40000 and 40100 are the same whole batches"),
        ("target.tokens=3", "target.tokens: 3: "),
        ("mixtures.more={wiki: 0.5, bio: 0.5}", "mixtures.more: the same ratios as mixtures.mid"),
        ("mixtures.MID={wiki: 0.6, bio: 0.4}", "two runs would share the folder"),
        ("mixtures={a/../../b: {wiki: 0.6, bio: 0.4}}", "becomes the name of files"),
        ("mixtures./tmp/x={wiki: 0.6, bio: 0.4}", "becomes the name of files"),
        (f"mixtures.{'m' * 300}={{wiki: 0.6, bio: 0.4}}", "longer than 100 bytes"),
        ("target.weights={wiki: -0.1}", "target.weights.wiki: -0.1: a weight is 0 or above"),
        ("target.weights={wiki: .inf}", "target.weights.wiki: inf: a weight is 0 or above"),
        ("target.weights={wiki: .nan}", "target.weights.wiki: Value nan: expected a number"),
        ("target.weights={wiki: [1, 2]}", "target.weights.wiki: Value [1, 2]: expected a number"),
        ("target.weights={wiki: 0, bio: 0}", "target.weights: all are 0"),
        ("target.bounds={wiki: [0.6, 1], bio: [0.6, 1]}", "the least sum to 1.2, above 1"),
        ("target.bounds={wiki: [0, 0.4], bio: [0, 0.4]}", "the most sum to 0.8, below 1"),
        ("target.bounds={wiki: 0.3}", "target.bounds.wiki: [0.3]: expected [least, most]"),
        ("evaluation.heldout_tokens=5", "evaluation.heldout_tokens: 5: fewer than the"),
        ("evaluation.tasks=[fact_recall]", "fact_recall asks about a table dataset, and no domain"),
        ("evaluation.tasks=[bio_recall, bio_recall]", "bio_recall"),
        ("evaluation.tasks=[arc_nothing]", "evaluation.tasks: unknown task 'arc_nothing'"),
        ("evaluation.heldout={sea: mixlaw:text}", "evaluation.heldout: unknown domain 'sea'"),
        ("domains.wiki=nowhere/tokens", "domains.wiki: nowhere/tokens: no such file"),
        ("tokenizer.identifier=nowhere.json", "tokenizer.identifier: nowhere.json: no such"),
        ("tokenizer.characters=0", "tokenizer.characters: 0: must be positive"),
        ("slurm={minutes: 0}", "slurm.minutes: 0: must be positive"),
        ("slurm={gpus: -1}", "slurm.gpus: -1: must not be negative"),
        ("workers=1e18", "workers: 1e+18: at most 10000"),
        ("tokenizer.vocab_size=5e14", "tokenizer.vocab_size: 5e+14: at most"),
        ("tokenizer.characters=1e18", "tokenizer.characters: 1e+18: at most"),
        ("evaluation.heldout_tokens=1e18", "evaluation.heldout_tokens: 1e+18: at most"),
        ("tokens=[40000,1e18]", "tokens: 1e+18: at most"),
        ("tokens=1e40", "tokens[0]: Value '1e40': expected a whole number"),
        ("tokens=???", "tokens: is still to be filled in; expected a list"),
        ("output=", "output: at least one is needed"),
    ],
)
def test_plan_knows_what_would_end_a_study_later(study_file, tmp_path, capsys, override, message):
    assert message in refused(study_file(), capsys, override)
    assert not (tmp_path / "out").exists()


def test_two_budgets_of_one_name_are_refused(study_file, capsys):
    error = refused(study_file(), capsys, "tokens=[4_001_000,4_004_000]", "target.tokens=4_001_000")
    assert "share the folder" in error


def test_output_that_is_a_file_is_refused(study_file, tmp_path, capsys):
    (tmp_path / "taken").write_text("x")
    assert "a file; give a folder" in refused(study_file(), capsys, f"output={tmp_path / 'taken'}")


def test_a_law_that_the_runs_cannot_carry_is_left_out_with_a_note(study_file, capsys):
    path = study_file([("[no_mixture, transfer]", "[no_mixture, two_pool, interaction, joint]")])
    study = load_study(path, ("sizes=w32", "target.size=w32"))
    laws, notes = possible_laws(study, plan(study), "x")
    assert "no_mixture" in laws
    assert len(laws) + len(notes) == 4
    assert notes
    assert all("is left out: " in note for note in notes)
    assert cli.run(cli.app, ["study", "plan", str(path), "sizes=w32", "target.size=w32"]) == 0
    assert f"mind: {notes[0]}" in capsys.readouterr().out


def test_no_law_left_and_nothing_to_hold_out_are_refused(study_file, capsys):
    one, two = "  mid: {wiki: 0.5, bio: 0.5}\n", "  low: {wiki: 0.8, bio: 0.2}\n"
    assert "a study chooses among several" in refused(study_file([(MIXTURES, one)]), capsys)
    small = [(MIXTURES, one + two), ("sizes: [w16, w32]", "sizes: [w64]")]
    assert "no law could be held to account" in refused(study_file(small), capsys)
    still = [
        ("  wiki: mixlaw", "  code: mixlaw:text?corpus=code\n  wiki: mixlaw"),
        (
            MIXTURES,
            "  a: {wiki: 0.5, bio: 0.4, code: 0.1}\n  b: {wiki: 0.4, bio: 0.5, code: 0.1}\n",
        ),
        ("sizes: [w16, w32]", "sizes: [w16, w32, w96]"),
        ("[no_mixture, transfer]", "[transfer]"),
    ]
    error = refused(study_file(still), capsys)
    assert "laws: none can be fitted to these runs" in error
    assert "vary it" in error


def test_scalars_and_counts_stand_for_lists(study_file):
    study = load_study(study_file(), ("sizes=w32", "target.size=w32", "tokens=40k", "seeds=3"))
    assert (study.sizes, study.tokens, study.seeds) == (["w32"], [40_000], [3])


def test_a_wrong_override_is_not_blamed_on_the_file_alone(study_file, capsys):
    assert refused(study_file(), capsys, "wrokers=3").startswith("error: override 'wrokers=3': ")
    assert refused(study_file(), capsys, "--workers=-3").count("and its overrides") == 1


def test_each_kind_of_domain_is_asked_by_its_own_task(study_file, tmp_path):
    (tmp_path / "facts.csv").write_text("name,colour\nAda,red\nBo,blue\nCy,red\n")
    text = "wiki: mixlaw:text?corpus=wikipedia"
    path = study_file(
        [
            (text, "wiki: mixlaw:table?path=facts.csv"),
            ("evaluation: {tasks: [bio_recall], heldout_tokens", "evaluation: {heldout_tokens"),
        ]
    )
    study = load_study(path)
    names = [(domain, task["metadata"]["alias"]) for domain, task in recalls(study)]
    assert sorted(names) == [("bio", "bio_recall:bio"), ("wiki", "fact_recall:wiki")]
    # The relative path is the study file's.
    assert study.domains["wiki"].endswith(f"path={tmp_path}/facts.csv")
    with pytest.raises(MixlawError, match="is asked for twice"):
        load_study(path, ("evaluation.tasks=[bio_recall, bio_recall]",))


def test_tasks_about_no_domain_are_asked_as_they_are(study_file):
    dump = {"task_name": "piqa:rc_0shot", "limit": 3}
    given = json.dumps(["bio_recall", "domain_loss:documents", dump])
    asked = tasks(load_study(study_file(), (f"evaluation.tasks={given}",)))
    assert dump in asked
    names = [t["metadata"]["alias"] for t in asked if "metadata" in t]
    assert names == ["bio_recall", "domain_loss:documents:wiki", "domain_loss:documents:bio"]


def test_a_task_that_was_made_of_the_training_text_is_refused(study_file, capsys):
    path = study_file([("corpus=wikipedia", "corpus=howto")])
    error = refused(path, capsys, 'evaluation.tasks=["hellaswag:rc_0shot"]')
    assert "so its score would say nothing" in error


def test_a_budget_below_one_batch_is_refused(study_file, capsys):
    error = refused(study_file(), capsys, "tokens=100", "target.tokens=100")
    assert "tokens: 100: fewer than the " in error


def test_token_files_need_their_tokenizer_and_text_to_be_scored_by(study_file, tmp_path, capsys):
    import numpy as np

    from olmo_mixlaw.datasets import open_dataset, train_tokenizer

    np.arange(3000, dtype=np.uint16).tofile(tmp_path / "web.npy")
    path = study_file([("wiki: mixlaw:text?corpus=wikipedia", "wiki: web.npy")])
    assert "need the tokenizer that made them" in refused(path, capsys)
    texts = open_dataset("mixlaw:biography?n=8&seed=1").documents(0, 200)
    train_tokenizer(texts, 400, tmp_path / "own.json")
    own = "tokenizer.identifier=own.json"
    assert "evaluation.heldout.wiki" in refused(path, capsys, f"{own}")
    study = load_study(path, (own, "evaluation.heldout.wiki=mixlaw:text?corpus=wikipedia"))
    assert study.domains["wiki"] == str(tmp_path / "web.npy")
    rung = plan(study)[0].rung
    assert rung.vocab_size == 400
    assert rung.eos_token_id == 0


@pytest.mark.parametrize("name", ["a/b", "..", ".x", "", " a", "a\nb", "a\0b", "é" * 60, "a\\b"])
def test_names_that_leave_the_folder_are_refused(name):
    with pytest.raises(MixlawError):
        check_name(name, "here")


def test_names_of_other_scripts_are_names():
    for name in ("wiki", "日本語", "a.b-c_d+e@f", "x (2)"):
        check_name(name, "here")


def test_plan_and_status_as_json(study_file, tmp_path, capsys):
    assert cli.run(cli.app, ["study", "plan", str(study_file()), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["runs"]) == 6
    assert said["laws"] == ["no_mixture", "transfer"]
    run = tmp_path / "out" / "runs" / "a"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("x: 1")
    assert cli.run(cli.app, ["study", "status", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["finished"] == said["steps"] == 0
    assert [(run["run_id"], run["state"], run["step"]) for run in said["runs"]] == [
        ("a", "waiting", 0)
    ]


@pytest.mark.parametrize("package", ["torch", "olmo"])
def test_a_missing_trainer_is_said_before_any_work(
    study_file, tmp_path, capsys, monkeypatch, package
):
    from olmo_mixlaw.study import trainers

    monkeypatch.setattr(trainers, "find_spec", lambda name: None if name == package else object())
    assert cli.run(cli.app, ["study", "run", str(study_file())]) == 2
    error = capsys.readouterr().err
    assert error == f"error: this needs {package}: pip install 'olmo-mixlaw[olmo]'\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.olmo
def test_a_planted_lock_is_refused_and_not_emptied(study_file, tmp_path, capsys):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(victim)
    assert cli.run(cli.app, ["study", "run", str(study_file())]) == 2
    assert ".lock: " in capsys.readouterr().err
    assert victim.read_text() == "precious"


def test_damaged_files_of_a_run_are_one_line(tmp_path):
    from olmo_mixlaw.study.progress import StudyError, seconds_of

    for text in ("", "[]", '{"seconds": 3}', '{"seconds": {"train": "x", "evaluate": 1}}', "{"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(StudyError, match="is not what a finished run leaves"):
            seconds_of(tmp_path)


def test_a_metrics_file_that_is_damaged_shows_no_progress(tmp_path):
    from olmo_mixlaw.study.progress import last_step

    (tmp_path / "checkpoints").mkdir()
    for text in ("", "step", "step,loss\ninf,3", "step,loss\nx,3", "loss\n3", "\0"):
        (tmp_path / "checkpoints" / "metrics.csv").write_text(text)
        assert last_step(tmp_path) == 0
