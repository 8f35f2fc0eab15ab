import json

import pytest

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.cli.doctor import examine


def test_doctor_answers_as_json_too(capsys):
    code = cli.run(cli.app, ["doctor", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in said] == [finding.name for finding in examine()]
    assert code == int(any(item["state"] == "fails" for item in said))


def test_a_gpu_that_is_asked_for_and_missing_is_said(capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("olmo")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.run(cli.app, ["doctor", "--gpu", "--json"]) == 1
    (gpu,) = [one for one in json.loads(capsys.readouterr().out) if one["name"] == "GPU"]
    assert (gpu["state"], gpu["text"]) == ("fails", "none is found")


@pytest.mark.parametrize(("kind", "precision"), [("dense", "fp32"), ("moe", "fp32")])
def test_arithmetic_is_held_against_fp64(kind, precision):
    pytest.importorskip("olmo")
    from olmo_mixlaw.models.reference import LIMITS, against_fp64

    errors = against_fp64(kind, "cpu", precision)
    assert all(0 < e <= most for e, most in zip(errors, LIMITS[kind, precision], strict=True))
