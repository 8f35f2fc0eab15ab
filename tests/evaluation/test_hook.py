"""The start-up hook: it waits, adds, keeps what the host has, and never breaks anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from olmo_mixlaw import plugin as tables

ROOT = Path(__file__).parents[2]
STARTUP = ROOT / "startup"
STANDIN = Path(__file__).parent / "standin"
INSTALL = f"import sys; sys.path.insert(0, {str(STARTUP)!r}); import _olmo_mixlaw_hook as h; "


def run(code: str, *paths: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that reads no start-up file of ours (-S), hook installed."""
    script = INSTALL + "h.install()\n" + textwrap.dedent(code)
    # Without site the environment's packages must be named; the hook is then ours alone.
    packages = [p for p in sys.path if p.endswith("site-packages")]
    path = os.pathsep.join(map(str, [*paths, ROOT, *packages]))
    return subprocess.run(
        [sys.executable, "-S", "-P", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path, **environment},
    )


def plugin(folder: Path, name: str, source: str) -> Path:
    """An installed package with an entry point for OLMES, in `folder`."""
    (folder / f"{name}.py").write_text(textwrap.dedent(source))
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[oe_eval.plugins]\n{name} = {name}\n")
    return folder


def test_nothing_is_imported_until_a_host_is() -> None:
    found = run(
        """
        ours = [m for m in sys.modules if m.startswith("olmo_mixlaw")]
        heavy = [m for m in ("importlib.metadata", "importlib.util", "re") if m in sys.modules]
        print(ours, heavy, type(sys.meta_path[0]).__name__)
        """
    )
    assert found.stdout.strip() == "[] [] AfterImport", found.stderr


def test_off_switch_leaves_the_interpreter_alone() -> None:
    code = "print([type(f).__name__ for f in sys.meta_path if 'After' in type(f).__name__])"
    assert run(code, OLMO_MIXLAW_NO_HOOK="1").stdout.strip() == "[]"
    assert run(code).stdout.strip() == "['AfterImport']"


def test_tables_of_the_host_are_extended_in_place() -> None:
    found = run(
        """
        import json
        from oe_eval.configs.tasks import TASK_CONFIGS
        from oe_eval.configs.task_suites import TASK_SUITE_CONFIGS
        from oe_eval.tasks.oe_eval_tasks import TASK_REGISTRY
        print(json.dumps([list(TASK_CONFIGS), list(TASK_SUITE_CONFIGS), list(TASK_REGISTRY)]))
        """,
        STANDIN,
    )
    configs, suites, registry = json.loads(found.stdout)
    assert {"arc_easy::olmes", "bio_recall::mixlaw", "bio_recall:mc::mixlaw"} <= set(configs)
    assert {"bio_recall:bpb::mixlaw", "slope::mixlaw", "domain_loss:documents::mixlaw"} <= {
        *configs
    }
    assert {"core_9mcqa::olmes", "mixlaw", "reasoning"} <= set(suites)
    assert {"arc_easy", "bio_recall", "bio_recall:major", "max_over_n"} <= set(registry)
    # It needs the tokens of text, which OLMES doesn't give: named only to be refused.
    assert "domain_loss" not in configs
    assert {"domain_loss", "domain_loss::mixlaw"} <= set(registry)


def test_launcher_tables_need_nothing_heavy() -> None:
    found = run(
        """
        from oe_eval.configs.tasks import TASK_CONFIGS
        print([m for m in ("torch", "pandas", "transformers", "olmo") if m in sys.modules])
        """,
        STANDIN,
    )
    assert found.stdout.strip() == "[]", found.stderr


def test_entry_that_the_host_has_is_kept(tmp_path: Path) -> None:
    plugin(
        tmp_path,
        "rival",
        "def task_configs(): return {'arc_easy::olmes': {'task_name': 'mine'}, 'new': {}}",
    )
    found = run(
        """
        from oe_eval.configs.tasks import TASK_CONFIGS
        print(TASK_CONFIGS["arc_easy::olmes"]["task_name"], "new" in TASK_CONFIGS)
        """,
        tmp_path,
        STANDIN,
    )
    assert found.stdout.strip() == "arc_easy True"
    assert "has 'arc_easy::olmes' already; plugin 'rival' doesn't replace it" in found.stderr


@pytest.mark.parametrize(
    "source", ["import nothing_of_that_name", "def task_configs(): raise RuntimeError('broken')"]
)
def test_broken_plugin_is_left_out_and_the_rest_works(tmp_path: Path, source: str) -> None:
    plugin(tmp_path, "broken", source)
    found = run(
        """
        from oe_eval.configs.tasks import TASK_CONFIGS
        print("bio_recall::mixlaw" in TASK_CONFIGS, "arc_easy::olmes" in TASK_CONFIGS)
        """,
        tmp_path,
        STANDIN,
    )
    assert found.stdout.strip() == "True True", found.stderr
    assert "plugin 'broken'" in found.stderr
    assert "Traceback" not in found.stderr


def test_table_that_is_elsewhere_is_reported(tmp_path: Path) -> None:
    host = tmp_path / "oe_eval" / "configs"
    host.mkdir(parents=True)
    (host / "tasks.py").write_text("CONFIGS = {}\n")
    found = run("import oe_eval.configs.tasks as t; print(t.CONFIGS)", tmp_path)
    assert found.stdout.strip() == "{}"
    assert "TASK_CONFIGS is not a table in this OLMES" in found.stderr


def test_host_without_us_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "olmo").mkdir()
    (tmp_path / "olmo" / "__init__.py").write_text("")
    (tmp_path / "olmo" / "data.py").write_text("VALUE = 3\n")
    (tmp_path / "olmo_mixlaw").mkdir()
    (tmp_path / "olmo_mixlaw" / "__init__.py").write_text("raise RuntimeError('broken')\n")
    found = run("import olmo.data; print(olmo.data.VALUE)", tmp_path)
    assert found.stdout.strip() == "3"
    assert "olmo.data is left as it is (RuntimeError: broken)" in found.stderr
    assert "Traceback" not in found.stderr


def test_module_keeps_its_source_and_loader() -> None:
    found = run(
        """
        import inspect
        import oe_eval.configs.tasks as t
        print(inspect.getsource(t).startswith("TASK_CONFIGS"), type(t.__loader__).__name__)
        """,
        STANDIN,
    )
    assert found.stdout.strip() == "True SourceFileLoader", found.stderr


def test_missing_host_module_still_raises_its_own_error() -> None:
    found = run("import oe_eval.configs.tasks")
    assert "ModuleNotFoundError: No module named 'oe_eval'" in found.stderr
    assert "olmo-mixlaw" not in found.stderr


def test_late_installation_extends_what_is_loaded() -> None:
    packages = [p for p in sys.path if p.endswith("site-packages")]
    code = (
        "import oe_eval.configs.tasks as t; before = len(t.TASK_CONFIGS); "
        f"{INSTALL} h.install(); h.install(); print(before, len(t.TASK_CONFIGS) > before)"
    )
    found = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": os.pathsep.join(map(str, [STANDIN, ROOT, *packages]))},
    )
    assert found.stdout.strip() == "1 True", found.stderr
    assert not found.stderr


def test_start_up_files_are_single_plain_lines() -> None:
    # Python executes a line of a .pth file only if it begins with "import".
    assert (STARTUP / "olmo_mixlaw.pth").read_text() == (
        "import _olmo_mixlaw_hook; _olmo_mixlaw_hook.install()\n"
    )
    assert (STARTUP / "olmo_mixlaw.start").read_text() == "_olmo_mixlaw_hook:install\n"


def test_installed_package_carries_the_start_up_files() -> None:
    from importlib.metadata import files

    names = {str(path) for path in files("olmo-mixlaw") or []}
    assert {"_olmo_mixlaw_hook.py", "olmo_mixlaw.pth", "olmo_mixlaw.start"} <= names


def leaves() -> None:
    sys.exit("no licence")


def test_a_plugin_that_ends_or_returns_nothing_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    functions: dict[str, Any] = {"empty": lambda: None, "ends": leaves, "good": lambda: {"x": 1}}
    points = [
        SimpleNamespace(name=name, load=lambda f=function: SimpleNamespace(task_configs=f))
        for name, function in functions.items()
    ]
    monkeypatch.setattr(tables, "entry_points", lambda group: points)
    module = ModuleType("oe_eval.configs.tasks")
    module.TASK_CONFIGS = {}  # type: ignore[attr-defined]
    tables.extend_olmes(module)
    assert module.TASK_CONFIGS == {"x": 1}
    said = capsys.readouterr().err
    assert "plugin 'empty': task_configs: TypeError" in said
    assert "plugin 'ends': task_configs: SystemExit: no licence" in said
