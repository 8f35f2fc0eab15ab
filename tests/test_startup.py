"""The start-up file breaks no host: not when something of ours fails, nor when nobody listens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STARTUP = Path(__file__).parent.parent / "startup"
# A host whose module is watched, and a failing extension of ours.
HOST = """
import sys
sys.path[:0] = {paths!r}
import _olmo_mixlaw_hook as hook
hook.AFTER = {{"watched_host": ("nothing_of_that_name", "extend")}}
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "AfterImport"]
{before}
hook.install()
import watched_host
open({out!r}, "w").write(str(watched_host.answer))
"""


@pytest.mark.parametrize(
    "before",
    [
        "",
        "sys.stderr = None",
        "sys.stderr.close()",
        "sys.stderr = open('/dev/full', 'w', buffering=1)",
        "import os; os.close(2)",
        "sys.stderr = object()",
    ],
)
def test_an_import_survives_us_when_standard_error_is_gone(tmp_path, before):
    (tmp_path / "watched_host.py").write_text("answer = 42\n")
    out = tmp_path / "out"
    code = HOST.format(paths=[str(STARTUP), str(tmp_path)], before=before, out=str(out))
    environment = {k: v for k, v in os.environ.items() if k != "OLMO_MIXLAW_NO_HOOK"}
    subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, env=environment)
    assert out.read_text() == "42"


@pytest.mark.parametrize("close", ["sys.stderr = None", "sys.stderr.close()", "os.close(2)"])
def test_a_note_to_nobody_is_no_error(close):
    code = f"import os, sys; from olmo_mixlaw.errors import complain; {close}; complain('x')"
    code += "; os._exit(7)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 7
