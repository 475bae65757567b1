#!/bin/sh
# Make the virtual environment with the locked versions. Run twice without harm.
set -eu

venv=$1
python=${PYTHON:-python3}

say() {
  echo "setup: $*" >&2
  exit 1
}

command -v "$python" > /dev/null || say "$python is missing: install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  say "$("$python" --version) is too old: Python 3.11 or newer is needed (name another: make PYTHON=python3.12 …)"

if ! "$python" -c 'import ensurepip, venv' 2> /dev/null; then
  # Debian keeps these two in a package of their own.
  if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    apt-get update -qq && apt-get install -y -qq python3-venv || say "python3-venv could not be installed"
  else
    say "Python's venv module is missing (Debian: apt-get install python3-venv)"
  fi
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || say "$venv could not be made"
"$venv/bin/pip" install -qq --disable-pip-version-check --constraint constraints.txt pip setuptools ||
  say "the package index cannot be reached: check the network, or PIP_INDEX_URL"
"$venv/bin/pip" install -qq --disable-pip-version-check --constraint constraints.txt --group dev --editable . ||
  say "the packages of pyproject.toml could not be installed"
