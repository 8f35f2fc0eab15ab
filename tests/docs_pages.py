"""The pages of the documentation, and the commands and files in their fenced blocks.

Written on a page:

- a block of `bash`, or the `$` lines of one of `console`, is what a reader types;
- `<!-- not run: REASON -->` above such a block says why no test runs it: it is then only parsed;
- a block with `title="FILE"` is a file that the reader saves under that name.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]*?) -->\s*)?"
    r"^(?P<indent> *)```(?P<language>\w*)(?P<more>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
SEPARATORS = ("|", "&&", ";", "&")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language and text, its title and why it isn't run, if any."""

    page: Path
    language: str
    text: str
    line: int
    title: str | None = None
    reason: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_typed(self) -> bool:
        return self.title is None and self.language in ("bash", "console")

    def script(self) -> str:
        """What the reader types, as one script."""
        if self.language == "bash":
            return self.text
        return "".join(f"{typed}\n" for typed, _ in self.shown())

    def shown(self) -> list[tuple[str, str]]:
        """Each command of a console, with what it answers."""
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]
        found = (re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*\n)(.*)", part, re.DOTALL) for part in parts)
        return [(match[1].rstrip(), match[2]) for match in found if match]

    def commands(self) -> list[list[str]]:
        """The simple commands, each as words, without comments and what goes to a file."""
        found: list[list[str]] = []
        for line in self.script().replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
            lexer.whitespace_split = True
            command: list[str] = []
            for word in [*lexer, ";"]:
                if word not in SEPARATORS:
                    command.append(word)
                elif command:
                    found.append(command)
                    command = []
        return [_bare(words) for words in found]


def _bare(words: list[str]) -> list[str]:
    """A command without variables set before it and without redirections."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    kept = [word for word in words if not re.match(r"\d?>{1,2}", word)]
    return kept[:-1] if any(re.fullmatch(r"\d?>{1,2}", word) for word in words) else kept


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        title = re.search(r'title="([^"]*)"', match["more"])
        indent = match["indent"]
        found.append(
            Block(
                page,
                match["language"],
                re.sub(f"^{indent}", "", match["text"], flags=re.MULTILINE),
                text.count("\n", 0, match.start("indent")) + 1,
                title and title[1],
                match["reason"],
            )
        )
    return found


ALL = [block for page in PAGES if page.exists() for block in blocks(page)]
TYPED = [block for block in ALL if block.is_typed]
