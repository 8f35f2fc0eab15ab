"""What is a loss, of what, in which unit: recognised aloud, or asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from olmo_mixlaw.errors import ConfigError, DataError, UnknownNameError
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.runs.importers import load_table, two_files

DOMAINS = ["web", "code"]


def pair(folder: Path, **columns: list) -> tuple[Path, Path]:
    """Four runs of two domains, and metrics with these columns."""
    share = np.array([0.2, 0.4, 0.6, 0.8])
    ids = {"run": ["a", "b", "c", "d"]}
    pd.DataFrame({**ids, "web": share, "code": 1 - share}).to_csv(folder / "r.csv", index=False)
    pd.DataFrame({**ids, **columns}).to_csv(folder / "m.csv", index=False)
    return folder / "r.csv", folder / "m.csv"


LOSS = [2.5, 2.4, 2.3, 2.2]
PART = [0.31, 0.35, 0.4, 0.38]


def test_what_trackers_export_beside_losses_is_left_out_aloud(tmp_path: Path) -> None:
    table = two_files(
        *pair(
            tmp_path,
            _step=[100.0] * 4,
            _runtime=[5.0] * 4,
            tokens=[1e9] * 4,
            essays_loss=LOSS,
            essays_loss__MIN=LOSS,
            essays_loss__MAX=LOSS,
            note=["x", "y", "z", "z"],
            void=[np.nan] * 4,
        )
    )
    assert table.targets == ["essays_loss"]
    assert table.unit == "nats"
    said = "\n".join(table.notes)
    assert "1 targets in nats (by their names)" in said
    for column in ("_step", "_runtime", "tokens", "essays_loss__MIN", "note (text)", "void (empty"):
        assert column in said


@pytest.mark.parametrize(
    "name", ["quiz_acc", "quiz/accuracy", "exact_match", "quiz F1", "quiz_ppl", "quiz:pass@1"]
)
def test_scores_are_never_minimised(tmp_path: Path, name: str) -> None:
    files = pair(tmp_path, web_loss=LOSS, **{name: PART})
    table = two_files(*files)
    assert table.targets == ["web"]
    assert name in "\n".join(table.notes)
    with pytest.raises(DataError, match="a target must be a loss"):
        two_files(*files, targets=[name])
    with pytest.raises(DataError, match=r"m\.csv: no column is a loss"):
        two_files(*pair(tmp_path, **{name: PART}))


@pytest.mark.parametrize("values", [PART, [31.0, 35.0, 40.0, 38.0]])
def test_a_column_that_may_be_a_score_is_asked_about(tmp_path: Path, values: list) -> None:
    files = pair(tmp_path, web_loss=LOSS, quiz=values)
    with pytest.raises(DataError, match=r"column .quiz. .* may be a score: say its --unit"):
        two_files(*files)
    assert two_files(*files, targets=["web"]).targets == ["web"]
    assert two_files(*files, unit="nats").targets == ["web", "quiz"]


@pytest.mark.parametrize("cell", ["2,31", "70%", "150M", "n/k"])
def test_one_cell_of_text_does_not_hide_its_column(tmp_path: Path, cell: str) -> None:
    files = pair(tmp_path, web_loss=LOSS, essays_loss=["2.4", "2.3", cell, "2.2"])
    with pytest.raises(DataError, match=r"m\.csv: line 4, column 'essays_loss'.*not a number"):
        two_files(*files)
    text = files[0].read_text().replace("0.6", f'"{cell}"', 1)
    pair(tmp_path, web_loss=LOSS)
    files[0].write_text(text)
    with pytest.raises(DataError, match=r"r\.csv: line (3|4), column .(web|code).*not a number"):
        two_files(*files)


def test_remarks_among_metrics_are_no_numbers(tmp_path: Path) -> None:
    remarks = ["restarted", "12", "fine", "slow"]
    table = two_files(*pair(tmp_path, web_loss=LOSS, remark=remarks))
    assert "remark (text)" in "\n".join(table.notes)
    with pytest.raises(DataError, match="line 2, column 'code_loss': 'failed'"):
        two_files(*pair(tmp_path, web_loss=LOSS, code_loss=["failed", "nan?", "x", "2.2"]))
    crossed = pair(tmp_path, web_loss=LOSS, code_loss=["2.4", "2,3", "2.2", "2.1"])
    assert two_files(*crossed, targets=["web"]).targets == ["web"]


def test_a_column_of_decimal_commas_is_refused_with_what_to_write(tmp_path: Path) -> None:
    cells = ["2,31", "2,2", "2,15", "2,1"]
    with pytest.raises(DataError, match=r"line 2, column 'web_loss': '2,31'.*write 2\.31"):
        two_files(*pair(tmp_path, web_loss=cells))


def test_a_missing_or_impossible_metric_is_named_in_its_own_file(tmp_path: Path) -> None:
    for value, words in ((np.nan, "is missing"), (1e18, "above 100"), (-1.0, "positive")):
        files = pair(tmp_path, web_loss=[2.5, 2.4, value, 2.2])
        frame = pd.read_csv(files[1]).iloc[[2, 0, 1, 3]]
        frame.to_csv(files[1], index=False)
        with pytest.raises(DataError, match=rf"m\.csv: line 2, column 'web_loss'.*{words}"):
            two_files(*files)


def test_columns_that_are_one_target_without_affixes_are_refused(tmp_path: Path) -> None:
    files = pair(tmp_path, train_web_loss=LOSS, valid_web_loss=LOSS[::-1])
    with pytest.raises(DataError, match="'train_web_loss' and 'valid_web_loss' are both 'web'"):
        two_files(*files)
    table = two_files(*files, targets=["valid_web_loss"])
    assert table.targets == ["web"]
    np.testing.assert_array_equal(table.design().losses[:, 0], LOSS[::-1])
    ratios = pd.read_csv(files[0]).rename(columns={"code": "train_web"})
    ratios.to_csv(files[0], index=False)
    with pytest.raises(DataError, match="'web' and 'train_web' are both domain 'web'"):
        two_files(*files)


@pytest.mark.parametrize(
    "form", ["{}_val_loss", "metric/{}_val_loss", "valid_{}", "eval/{}/CE loss", "{}_bpb"]
)
def test_targets_find_their_domains_and_say_so(tmp_path: Path, form: str) -> None:
    names = {form.format(d): LOSS for d in DOMAINS}
    table = two_files(*pair(tmp_path, **names))
    assert table.targets == DOMAINS
    assert "2 of them domains of the mixture" in table.text()
    assert f"web <- {form.format('web')}" in "\n".join(table.notes)


def test_a_target_named_nearly_like_a_domain_is_pointed_at() -> None:
    rows = [
        {"run_id": r, "w_web": w, "w_code": 1 - w, "domain": f"{d} heldout", "loss": 2.0 + w}
        for r, w in (("a", 0.25), ("b", 0.5))
        for d in DOMAINS
    ]
    text = RunTable(pd.DataFrame(rows)).text()
    assert "0 of them domains of the mixture" in text
    assert "'web heldout' (domain 'web'?)" in text


def test_olmes_tasks_above_1_are_bits_a_byte(tmp_path: Path) -> None:
    hard = {"quiz:rc::olmes": [1.6, 1.5, 1.4, 1.3], "moral:rc::olmes": PART}
    table = two_files(*pair(tmp_path, **hard))
    assert table.unit == table.design().unit == "bits_per_byte"
    assert "2 targets in bits a byte" in table.text()
    with pytest.raises(DataError, match=r"column .quiz:mc::olmes. .* may be a score"):
        two_files(*pair(tmp_path, **hard, **{"quiz:mc::olmes": PART}))


def test_units_are_kept_converted_or_refused(tmp_path: Path) -> None:
    files = pair(tmp_path, essays=LOSS)
    assert two_files(*files).unit == "unstated"
    assert "unit of the losses is not stated" in two_files(*files).text()
    bits = two_files(*files, unit="bits")
    assert bits.unit == "nats"
    np.testing.assert_allclose(bits.design().losses[:, 0], np.log(2) * np.array(LOSS))
    with pytest.raises(ConfigError, match="'bytes' is none of nats, bits, bits_per_byte"):
        two_files(*files, unit="bytes")
    with pytest.raises(DataError, match="two units: 'web_bpb' is in bits a byte"):
        two_files(*pair(tmp_path, web_bpb=LOSS, code_loss=LOSS))
    with pytest.raises(ConfigError, match="'web_bpb' is in bits a byte by its name"):
        two_files(*pair(tmp_path, web_bpb=LOSS), unit="nats")


def test_a_saved_table_keeps_its_unit(tmp_path: Path) -> None:
    table = two_files(*pair(tmp_path, web_bpb=LOSS))
    table.save(tmp_path / "t")
    assert RunTable.load(tmp_path / "t").design().take(np.array([0, 1])).unit == "bits_per_byte"
    with pytest.raises(DataError, match="says bits_per_byte, but nats was asked for"):
        load_table(str(tmp_path / "t"), unit="nats")
    mixed = pd.read_csv(tmp_path / "t" / "losses.csv")
    mixed.loc[0, "unit"] = "nats"
    with pytest.raises(DataError, match="a table has one unit"):
        RunTable(mixed)
    with pytest.raises(DataError, match="'pounds' is none of"):
        RunTable(mixed.assign(unit="pounds"))


def test_targets_may_be_chosen_from_any_table(tmp_path: Path) -> None:
    two_files(*pair(tmp_path, web_loss=LOSS, code_loss=LOSS)).save(tmp_path / "t")
    assert load_table(str(tmp_path / "t"), targets=["code"]).targets == ["code"]
    with pytest.raises(UnknownNameError, match="did you mean 'code'"):
        load_table(str(tmp_path / "t"), targets=["cod"])
    files = pair(tmp_path, web_loss=LOSS)
    with pytest.raises(UnknownNameError, match=r"m\.csv: --target: unknown target 'wep_loss'"):
        two_files(*files, targets=["wep_loss"])


@pytest.mark.parametrize("value", [-1.0, 0.0, np.inf])
def test_sizes_of_a_swarm_are_positive(tmp_path: Path, value: float) -> None:
    files = pair(tmp_path, web_loss=LOSS)
    with pytest.raises(ConfigError, match="--size: must be positive"):
        two_files(*files, n_params=value)
    with pytest.raises(ConfigError, match="--tokens: must be positive"):
        two_files(*files, n_tokens=value)


def test_percent_ratios_are_refused_as_such(tmp_path: Path) -> None:
    files = pair(tmp_path, web_loss=LOSS)
    frame = pd.read_csv(files[0])
    frame[DOMAINS] *= 100
    frame.to_csv(files[0], index=False)
    with pytest.raises(DataError, match=r"r\.csv: line 2.* sum to 100.*divide percent by 100"):
        two_files(*files)
