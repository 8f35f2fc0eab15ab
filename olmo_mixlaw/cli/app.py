"""`olmo-mixlaw`: one command a stage, each imported only when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from olmo_mixlaw import __version__
from olmo_mixlaw.errors import MixlawError, unknown_name

# name -> (module:attribute, what `olmo-mixlaw --help` says of it)
COMMANDS = {
    "data": ("olmo_mixlaw.cli.data:data", "Make, show and count training corpora."),
    "ladder": ("olmo_mixlaw.cli.ladder:ladder", "Show ladders of sizes, invent rungs."),
    "train": ("olmo_mixlaw.cli.train:train", "Train one model with OLMo's Trainer."),
    "export": ("olmo_mixlaw.cli.export:export", "Convert checkpoints to and from HuggingFace."),
    "evaluate": ("olmo_mixlaw.cli.evaluate:evaluate", "Score a model, in OLMES format."),
    "study": ("olmo_mixlaw.cli.study:study", "Run a ladder of sizes and mixtures, and report."),
    "fit": ("olmo_mixlaw.cli.fit:fit", "Fit one law to a table of runs."),
    "compare": ("olmo_mixlaw.cli.compare:compare", "Compare laws by held-out error."),
    "optimize": ("olmo_mixlaw.cli.optimize:optimize", "Find the best mixture under a fitted law."),
    "predict": ("olmo_mixlaw.cli.predict:predict", "Predict losses with a fitted law."),
    "olmes": ("olmo_mixlaw.cli.olmes:olmes", "Run OLMES with our tasks, in this process."),
    "doctor": ("olmo_mixlaw.cli.doctor:doctor", "Check what works in this environment."),
}


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
        return result if isinstance(result, int) else 0
    except MixlawError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except click.ClickException as error:
        error.show()
        return 2
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
        return 130


def main() -> None:
    sys.exit(run(app, prog_name="olmo-mixlaw"))


if __name__ == "__main__":
    main()
