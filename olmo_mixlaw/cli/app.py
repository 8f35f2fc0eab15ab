"""`olmo-mixlaw`: one command a stage, each imported only when it is called."""

from __future__ import annotations

import io
import os
import pickle
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from olmo_mixlaw import __version__
from olmo_mixlaw.errors import MixlawError, unknown_name

# name -> (module:attribute, what `olmo-mixlaw --help` says of it)
COMMANDS = {
    "data": ("olmo_mixlaw.cli.data:data", "Make, show and count training corpora."),
    "swarm": ("olmo_mixlaw.cli.swarm:swarm", "Draw mixtures for a swarm of small runs."),
    "reuse": ("olmo_mixlaw.cli.reuse:reuse", "Keep an old mixture where its sources change."),
    "ladder": ("olmo_mixlaw.cli.ladder:ladder", "Show ladders of sizes, invent rungs."),
    "train": ("olmo_mixlaw.cli.train:train", "Train one model with OLMo's Trainer."),
    "export": ("olmo_mixlaw.cli.export:export", "Convert checkpoints to and from HuggingFace."),
    "evaluate": ("olmo_mixlaw.cli.evaluate:evaluate", "Score a model, in OLMES format."),
    "study": ("olmo_mixlaw.cli.study:study", "Run a ladder of sizes and mixtures, and report."),
    "fit": ("olmo_mixlaw.cli.fit:fit", "Fit one law to a table of runs."),
    "compare": ("olmo_mixlaw.cli.compare:compare", "Compare laws by held-out error."),
    "optimize": ("olmo_mixlaw.cli.optimize:optimize", "Find the best mixture under a fitted law."),
    "design": ("olmo_mixlaw.cli.design:design", "Choose which runs to buy next."),
    "predict": ("olmo_mixlaw.cli.predict:predict", "Predict losses with a fitted law."),
    "scores": ("olmo_mixlaw.cli.scores:scores", "From evaluators' outputs to the best scores."),
    "knowledge": ("olmo_mixlaw.cli.knowledge:knowledge", "Predict if facts will be learned."),
    "olmes": ("olmo_mixlaw.cli.olmes:olmes", "Run OLMES with our tasks, in this process."),
    "doctor": ("olmo_mixlaw.cli.doctor:doctor", "Check what works in this environment."),
}

# What each extra brings, as it is imported.
EXTRAS = {
    "olmo": ("olmo", "olmo_core", "torch", "datasets", "sklearn", "torchmetrics", "wandb"),
    "hf": ("transformers", "safetensors"),
    "lightgbm": ("lightgbm",),
    "slurm": ("submitit",),
}

# Letters of one word in a message: longer than any path, shorter than what fills a screen.
LONGEST_WORD = 500


class LazyGroup(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            raise unknown_name("command", name, COMMANDS)
        module, _, attribute = COMMANDS[name][0].partition(":")
        return getattr(import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="olmo-mixlaw")
def app() -> None:
    """Decide in which proportions to mix pretraining data, from small OLMo runs."""


def run(command: click.Command, arguments: list[str] | None = None, **kwargs: Any) -> int:
    """Run a command; returns its exit code, and prints a user's mistake as one line."""
    try:
        result = command.main(args=arguments, standalone_mode=False, **kwargs)
        if sys.stdout is not None:
            sys.stdout.flush()  # here a full disk is an error, at the interpreter's end a traceback
        return result if isinstance(result, int) and not isinstance(result, bool) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        _say("stopped")
        return 130
    except BrokenPipeError:
        return 141  # as a shell counts it: whoever read us (head, less) has gone
    except (Exception, RecursionError) as error:
        line = mistake(error)
        if line is None:
            raise
        _say(f"error: {line}")
        return 2


def mistake(error: Exception) -> str | None:
    """What a user is told of an error, in one line; None for a defect of ours.

    Beside our own errors those are: the system's, about files, memory and missing packages.
    """
    text: str | None = None
    if isinstance(error, MixlawError):
        text = str(error)
    elif isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "olmo-mixlaw"
        text = f"{error.format_message()} (see {path} --help)"
    elif isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, ImportError):
        text = _missing(error)
    elif isinstance(error, MemoryError):
        text = f"not enough memory{f' ({error})' if str(error) else ''}"
    elif isinstance(error, pickle.UnpicklingError):
        text = (
            "a file of weights holds more than tensors, and reading it could run code, so it is "
            "refused; save the model as safetensors"
        )
    elif isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        text = f"{_named(error) or 'standard output'}: {reason}"
    if text is None:
        return None
    return " ".join(w if len(w) <= LONGEST_WORD else f"{w[:80]}..." for w in text.split())


def _named(error: OSError) -> str:
    names = [error.filename, error.filename2]
    return ", ".join(os.fsdecode(n) if isinstance(n, bytes) else str(n) for n in names if n)


def _missing(error: ImportError) -> str | None:
    """What is not installed, and the extra that brings it; None for a module of ours."""
    package = (error.name or "").partition(".")[0]
    if not package or package in ("olmo_mixlaw", "_olmo_mixlaw_hook"):
        return None
    extra = next((extra for extra, names in EXTRAS.items() if package in names), "")
    install = f": pip install 'olmo-mixlaw[{extra}]'" if extra else ""
    if isinstance(error, ModuleNotFoundError):
        return f"this needs {package}, which is not installed{install}"
    return f"{package} can't be imported ({error}); olmo-mixlaw doctor says what to mend"


def _say(line: str) -> None:
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(line, file=sys.stderr, flush=True)


def _open_streams() -> None:
    """Streams that a shell closed swallow what is said; no character stops a command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    try:
        _open_streams()
        warnings.filterwarnings("ignore", message=".*register_new_resolver.*")  # OLMo's own
        code = run(app, prog_name="olmo-mixlaw")
    except KeyboardInterrupt:  # between two commands' own handling of it
        _say("stopped")
        code = 130
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # Python would complain of it at its end
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


if __name__ == "__main__":
    main()
