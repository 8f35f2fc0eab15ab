"""A disk of some kilobytes, to be filled."""

import os
import shutil
import subprocess
import sys

import pytest


def in_small_disk(folder, size, before, code):
    """Runs Python where `folder` is a disk of that size, which no other process sees."""
    mount = f"mount -t tmpfs -o size={size} tmpfs {folder}"
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*shell, mount], capture_output=True).returncode
    ):
        pytest.skip("needs unshare and the right to mount")
    python = f'{mount}; {before} exec {sys.executable} -c "$CODE"'
    environment = {**os.environ, "CODE": code, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([*shell, python], env=environment, capture_output=True, text=True)
