import gzip
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo_mixlaw.errors import DataError
from olmo_mixlaw.runs import RunTable


def losses(**changes):
    frame = pd.DataFrame(
        {
            "run_id": ["a", "a", "b", "b"],
            "n_params": [10.0, 10.0, 20.0, 20.0],
            "n_tokens": [100.0] * 4,
            "w_web": [0.25, 0.25, 0.5, 0.5],
            "w_bio": [0.75, 0.75, 0.5, 0.5],
            "domain": ["web", "bio", "web", "bio"],
            "loss": [3.0, 1.0, 2.5, 1.5],
        }
    )
    for column, (row, value) in changes.items():
        frame.loc[row, column] = value
    return frame


def test_design_lines_up_runs_ratios_and_losses():
    design = RunTable(losses()).design()
    assert design.run_ids == ["a", "b"]
    assert design.domains == ["web", "bio"]
    assert design.targets == ["web", "bio"]
    np.testing.assert_array_equal(design.ratios, [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_array_equal(design.losses, [[3.0, 1.0], [2.5, 1.5]])
    np.testing.assert_array_equal(design.n_active, [10, 20])
    np.testing.assert_array_equal(design.take(np.array([False, True])).n_params, [20])


def test_missing_target_of_a_run_is_nan():
    design = RunTable(losses().iloc[:3]).design()
    assert np.isnan(design.losses[1, 1])
    assert np.isfinite(design.losses).sum() == 3


def test_save_and_load_give_the_same_table_and_bytes(tmp_path):
    scores = pd.DataFrame(
        {"run_id": ["a"], "task": ["bio_recall"], "metric": ["exact_match"], "value": [1 / 3]}
    )
    table = RunTable(losses(loss=(0, 1 / 3)), scores)
    table.save(tmp_path / "one")
    again = RunTable.load(tmp_path / "one")
    again.save(tmp_path / "two")
    for name in ("losses.csv", "scores.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert again.losses["loss"][0] == 1 / 3
    assert again.scores["value"][0] == 1 / 3


def test_parquet_and_published_names_are_read(tmp_path):
    frame = losses().rename(columns={"n_params": "N", "n_tokens": "D"})
    frame.to_parquet(tmp_path / "losses.parquet")
    assert RunTable.load(tmp_path).design().n_params.tolist() == [10, 20]
    frame.to_csv(tmp_path / "t.csv.gz", index=False)
    assert RunTable.load(tmp_path / "t.csv.gz").design().n_tokens.tolist() == [100, 100]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": (1, np.nan)}, r"runs.csv: line 3, column 'loss': .*finite and positive"),
        ({"loss": (2, -1.0)}, r"line 4, column 'loss'"),
        ({"w_web": (3, -0.5)}, r"line 5, column 'w_web': .*must not be negative"),
        ({"w_web": (3, np.nan)}, r"line 5, column 'w_web'"),
        ({"w_web": ([0, 1], 0.5)}, r"line 2: the weights of run 'a' sum to 1.25, not 1"),
        ({"domain": (1, "web")}, r"line 3: a second row for run_id 'a', domain 'web'"),
        ({"n_params": (1, 11.0)}, r"run 'a' has more than one value of 'n_params'"),
        ({"n_tokens": (0, 0.0)}, r"line 2, column 'n_tokens': .*must be positive"),
        ({"n_params": ([2, 3], np.inf)}, r"line 4, column 'n_params': .*must be positive and fin"),
        (
            {"n_params": ([2, 3], np.nan)},
            r"line 4, column 'n_params': .*is missing, but other rows",
        ),
        ({"loss": (1, 1e18)}, r"line 3, column 'loss': .*is above 100"),
        ({"w_web": ([0, 1], 30.0), "w_bio": ([0, 1], 70.0)}, r"sum to 100,.*divide percent by 100"),
        ({"domain": (2, "quiz_acc")}, r"line 4, column 'domain': .*is a score: higher is better"),
        ({"run_id": (2, np.nan)}, r"line 4, column 'run_id': .*is missing"),
        ({"domain": (2, None)}, r"line 4, column 'domain': .*is missing"),
    ],
)
def test_bad_rows_are_named_by_line_and_column(changes, message):
    with pytest.raises(DataError, match=message):
        RunTable(losses(**changes), source="runs.csv")


@pytest.mark.parametrize(
    ("column", "cells", "message"),
    [
        ("seed", [1, 1, "abc", 2], "line 4, column 'seed': 'abc': is not a number"),
        ("seed", [1, 1, np.inf, np.inf], "line 4, column 'seed': inf: a seed is a whole number"),
        ("seed", [1, 1, 2.5, 2.5], "line 4, column 'seed': 2.5: a seed is a whole number"),
        ("split", [1e7, 1e7, 2e7, 2e7], "line 2, column 'split': 10000000.0: names a part"),
        ("split", ["train", "train", 2.5, 2.5], "line 4, column 'split': 2.5: names a part"),
        ("run_id", ["a", "a", " ", " "], "line 4, column 'run_id': ' ': is missing"),
        ("run_id", [1.0, 1.0, np.inf, np.inf], "line 4, column 'run_id': inf: is no name"),
        ("domain", [2.31, 2.4, 2.31, 2.4], "line 2, column 'domain': 2.31: is a number"),
        ("domain", ["web", "", "web", "bio"], "line 3, column 'domain': '': is missing"),
        ("n_params", [0.19, 0.19, 1.3, 1.3], "line 2, column 'n_params': 0.19: is below 1"),
        ("n_tokens", [0.5] * 4, "line 2, column 'n_tokens': 0.5: is below 1"),
        ("loss", [True, True, True, True], "line 2, column 'loss': True: is not a number"),
    ],
)
def test_cells_that_cannot_be_what_their_header_says_are_refused(column, cells, message):
    with pytest.raises(DataError) as caught:
        RunTable(losses().assign(**{column: cells}), source="t.csv")
    assert str(caught.value).startswith(f"t.csv: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("seed", [1, 1, np.nan, np.nan]),
        ("seed", ["1", "1", "-2", "-2"]),
        ("split", [0, 0, 4, 4]),
        ("split", ["train", "train", None, None]),
        ("run_id", [7, 7, 8, 8]),
        ("run_id", ["1.5", "1.5", "é", "é"]),
        ("n_params", [1.9e8 + 0.3] * 4),
    ],
)
def test_cells_that_may_be_meant_are_kept(column, cells):
    assert len(RunTable(losses().assign(**{column: cells})).design()) == 2


def test_domains_may_be_named_by_whole_numbers(tmp_path):
    frame = losses().rename(columns={"w_web": "w_0", "w_bio": "w_1"}).assign(domain=[0, 1, 0, 1])
    frame.to_csv(tmp_path / "losses.csv", index=False)
    table = RunTable.load(tmp_path)
    assert table.domains == table.targets == ["0", "1"]
    assert "2 of them domains of the mixture" in table.text()


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("run_id", np.nan, "column 'run_id': nan: is missing"),
        ("task", " ", "column 'task': ' ': is missing"),
        ("stderr", np.inf, "column 'stderr': inf: must be finite"),
        ("stderr", -0.1, "column 'stderr': -0.1: must be finite and not negative"),
        ("n_params", "150M", "column 'n_params': '150M': is not a number; write 1.5e+08"),
        ("n_tokens", np.inf, "column 'n_tokens': inf: must be positive and finite"),
    ],
)
def test_bad_scores_are_named_in_every_column(column, cell, message):
    scores = {"run_id": "a", "task": "quiz", "metric": "accuracy", "value": 0.5, column: cell}
    with pytest.raises(DataError, match=re.escape(f"(scores): line 2, {message}")):
        RunTable(losses(), pd.DataFrame([scores]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run_id,domain\na,b\n", r"column 'loss' is missing \(found: run_id, domain\)"),
        ("run_id,domain,loss\na,b,1\n", "no column w_<domain>"),
        ("run_id,domain,loss,w_b\na,b,low,1\n", r"line 2, column 'loss': 'low': is not a number"),
        ("", r"can't be read as a table"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        RunTable.load(path)


def test_a_gzipped_table_is_unpacked_once(tmp_path, monkeypatch):
    losses().to_csv(tmp_path / "t.csv.gz", index=False)
    opened = []

    class Counted(gzip.GzipFile):
        def __init__(self, *given, **more):
            opened.append(given)
            super().__init__(*given, **more)

    monkeypatch.setattr(gzip, "GzipFile", Counted)
    assert RunTable.load(tmp_path / "t.csv.gz").design().run_ids == ["a", "b"]
    assert len(opened) == 1


@pytest.mark.parametrize("suffix", [".bz2", ".xz", ".zip"])
def test_other_ways_to_pack_a_table_are_read_too(tmp_path, suffix):
    losses().to_csv(tmp_path / f"t.csv{suffix}", index=False)
    assert RunTable.load(tmp_path / f"t.csv{suffix}").design().run_ids == ["a", "b"]


def test_a_parquet_file_with_its_runs_as_index_is_read(tmp_path):
    losses().set_index("run_id").to_parquet(tmp_path / "losses.parquet")
    assert RunTable.load(tmp_path).design().run_ids == ["a", "b"]


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone.csv: no such file"):
        RunTable.load(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"holds no losses.csv"):
        RunTable.load(tmp_path)


def test_rounded_weights_are_rescaled_only_when_asked():
    rounded = losses(w_web=([0, 1], 0.2504))
    with pytest.raises(DataError, match="sum to"):
        RunTable(rounded)
    ratios = RunTable(rounded, weight_tolerance=1e-3).design().ratios
    np.testing.assert_allclose(ratios.sum(1), 1, atol=1e-12)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.permutations(range(4)))
def test_row_order_does_not_change_the_values(weights, order):
    ratios = np.array(weights) / np.sum(weights)
    frame = losses()[["run_id", "domain", "loss"]]
    for i, ratio in enumerate(ratios):
        frame[f"w_{i}"] = ratio
    design = RunTable(frame.iloc[list(order)]).design()
    got = {
        (run, domain): design.losses[i, j]
        for i, run in enumerate(design.run_ids)
        for j, domain in enumerate(design.targets)
    }
    assert got == {(r.run_id, r.domain): r.loss for r in frame.itertuples()}


@pytest.mark.parametrize("column", ["loss", "n_params", "w_web"])
@pytest.mark.parametrize(("cell", "write"), [("150M", "1.5e.08"), ("70%", "0.7"), ("2,31", "2.31")])
def test_cells_with_units_are_refused_with_what_to_write(column, cell, write):
    frame = losses().astype({column: object})
    frame.loc[2, column] = cell
    with pytest.raises(DataError, match=rf"t.csv: line 4, column '{column}'.*write {write}") as e:
        RunTable(frame, source="t.csv")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("metric", "row", "message"),
    [
        ("accuracy", {"value": 1e18}, "not within 0 to 1"),
        ("acc_raw", {"value": 31.0}, "not within 0 to 1"),
        ("exact_match", {"value": -0.1}, "not within 0 to 1"),
        ("bpb", {"value": 0.0}, "bits must be positive"),
        ("bpb", {"value": 1e18}, "above 100"),
        ("accuracy", {"value": "31%"}, "is not a number; write 0.31"),
        ("accuracy", {"n_instances": 0}, "'n_instances'.*must be 1 or more"),
        ("accuracy", {"n_instances": -5}, "'n_instances'.*must be 1 or more"),
    ],
)
def test_impossible_scores_are_named_in_their_own_file(tmp_path, metric, row, message):
    RunTable(losses()).save(tmp_path)
    good = {"run_id": "a", "task": "quiz", "metric": metric, "value": 0.5, "n_instances": 40}
    rows = [{**good, "run_id": "b"}, {**good, **row}]
    pd.DataFrame(rows).to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(DataError, match=rf"scores.csv: line 3, column.*{message}"):
        RunTable.load(tmp_path)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("n_params", "params"), ("n_params", "Model size"), ("n_tokens", "train_tokens")],
)
def test_columns_named_nearly_like_ours_are_asked_about(ours, theirs):
    with pytest.raises(DataError, match=f"column '{theirs}' may be {ours}.*call it {ours}"):
        RunTable(losses().rename(columns={ours: theirs}))


@pytest.mark.parametrize("theirs", ["active_params", "N_act", "n_params_active", "activated"])
def test_active_counts_under_another_name_are_asked_about(theirs):
    with pytest.raises(DataError, match=f"column '{theirs}' may be n_active"):
        RunTable(losses().assign(**{theirs: 5.0}))


def test_a_table_without_active_counts_says_so(tmp_path):
    assert not RunTable(losses()).design().active_known
    RunTable(losses()).save(tmp_path)
    assert not RunTable.load(tmp_path).design().active_known
    given = RunTable(losses().assign(n_active=5.0)).design()
    assert given.active_known
    assert given.take(np.array([0])).active_known


@pytest.mark.parametrize("cut", [0.3, 0.7, 0.95])
def test_a_cut_or_damaged_archive_is_refused(tmp_path, cut):
    path = tmp_path / "t.csv.gz"
    frame = pd.concat([losses().assign(run_id=f"r{i}") for i in range(50)])
    frame.assign(run_id=np.arange(len(frame)) // 2).to_csv(path, index=False)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[int(cut * len(whole))] ^= 0xFF
    for content in (whole[: int(cut * len(whole))], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"t\.csv\.gz: "):
            RunTable.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run_id,domain,loss,w_b,w_b\na,b,1,1,1\n", "line 1: two columns are called 'w_b'"),
        ("run_id,domain,loss,w_b\na,b,1,1,0\nb,b,1,1,0\n", "more cells than the 4"),
    ],
)
def test_headers_that_would_shift_columns_are_refused(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        RunTable.load(path)


def test_a_gzip_file_that_unpacks_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    monkeypatch.setattr("olmo_mixlaw.runs.frames.MOST_BYTES", 3 << 20)
    bomb = tmp_path / "losses.csv.gz"
    with gzip.open(bomb, "wb") as file:
        for _ in range(5):
            file.write(b"0" * (1 << 20))
    with pytest.raises(DataError, match=r"losses\.csv\.gz: unpacks to more than"):
        RunTable.load(bomb)
