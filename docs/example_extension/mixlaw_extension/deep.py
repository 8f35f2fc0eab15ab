"""A ladder of sizes: the path of its YAML file, which lies beside this module.

A mapping with the same keys would do, or a function that returns either. pyproject.toml has a
line that takes YAML files into the package (`package-data`).
"""

from pathlib import Path

DEEP = Path(__file__).with_name("deep.yaml")
