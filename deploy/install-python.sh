#!/usr/bin/env bash
# Makes the virtual environment named by $1 from requirements.lock: with uv where it is installed, else venv and pip.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1

if command -v uv >/dev/null; then
  echo "setup: creating $venv with uv"
  uv venv --quiet --allow-existing --python '>=3.11,<3.14' "$venv"
  echo "setup: installing the locked dependencies"
  uv pip install --quiet --python "$venv/bin/python" --require-hashes -r requirements.lock
  uv pip install --quiet --python "$venv/bin/python" --no-deps -e .
else
  python=
  for candidate in python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
      python=$candidate
      break
    fi
  done
  if [ -z "$python" ]; then
    echo "setup: Python 3.11, 3.12 or 3.13 with venv is needed (Debian: apt-get install python3 python3-venv), or uv" >&2
    exit 1
  fi
  echo "setup: creating $venv with $("$python" --version)"
  "$python" -m venv "$venv"
  echo "setup: installing the locked dependencies (a minute or two)"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
  # Setuptools warns at length that an editable installation is one.
  PYTHONWARNINGS="ignore:Editable installation" \
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -e .
fi
echo "setup: done"
