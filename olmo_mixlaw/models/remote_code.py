"""Our transformers class as files beside its weights: `trust_remote_code=True` then loads them
where olmo_mixlaw isn't installed.

They are this package's own modules, copied with their imports of each other made relative.
"""

from __future__ import annotations

import re
from pathlib import Path

FIRST = "modeling_mixlaw"
# Module -> the file that it becomes.
FILES = {
    "models/hf": FIRST,
    "models/moe": "moe",
    "models/moe_config": "moe_config",
    "models/moe_ops": "moe_ops",
    "models/routing": "routing",
    "models/uncompiled": "uncompiled",
    "errors": "errors",
}
_IMPORT = re.compile(r"^( *from )olmo_mixlaw\.(?:models\.)?(\w+ import )", re.MULTILINE)


def write(folder: Path) -> None:
    """Write the modules into `folder`."""
    package = Path(__file__).parent.parent
    for module, name in FILES.items():
        source = (package / f"{module}.py").read_text(encoding="utf-8")
        source = _IMPORT.sub(r"\1.\2", source)
        if name == FIRST:
            source += _named([other for other in FILES.values() if other != FIRST])
        (folder / f"{name}.py").write_text(source, encoding="utf-8")


def _named(files: list[str]) -> str:
    """Code that does nothing but name `files`: version 4 copies those that the first file names,
    not those that they name in turn."""
    imports = "\n".join(f"    from .{name} import __doc__" for name in files)
    return f"\nif False:  # names every file, for transformers to copy\n{imports}\n"
