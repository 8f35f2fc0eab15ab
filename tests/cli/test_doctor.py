import json

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.cli.doctor import examine


def test_doctor_answers_as_json_too(capsys):
    code = cli.run(cli.app, ["doctor", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in said] == [finding.name for finding in examine()]
    assert code == int(any(item["state"] == "fails" for item in said))
