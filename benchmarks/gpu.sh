#!/usr/bin/env bash
# All that only a GPU can settle, in under ten minutes: `make gpu`, or this with --device cpu.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
