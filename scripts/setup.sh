#!/bin/sh
# Makes the virtual environment with pinned packages, and sees to bubblewrap. Run by `make setup`.
set -eu
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
TORCH=${TORCH:-pinned}

say() { printf '%s\n' "$*" >&2; }

# Installs distribution packages when we are root, otherwise says the one command and stops.
need() {
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "setup: installing $* with apt-get"
        apt-get install -y -qq "$@" >/dev/null || { apt-get update -qq && apt-get install -y -qq "$@" >/dev/null; }
    else
        say "setup: missing: $*. Run this, then try again:"
        say "    sudo apt-get install -y $*"
        exit 1
    fi
}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    say "setup: Python 3.11 or newer is needed, and '$PYTHON' is not. Name one: make PYTHON=python3.11 ..."
    exit 1
}
"$PYTHON" -c 'import ensurepip' 2>/dev/null || need python3-venv
command -v git >/dev/null 2>&1 || need git
command -v bwrap >/dev/null 2>&1 || need bubblewrap

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
case $TORCH in
pinned)
    "$VENV/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt torch
    "$VENV/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
    ;;
system)
    "$PYTHON" scripts/system_torch.py "$VENV"
    grep -v '^torch==' constraints.txt >"$VENV/constraints.txt"
    "$VENV/bin/pip" install --quiet --disable-pip-version-check -c "$VENV/constraints.txt" -e '.[dev]'
    ;;
*)
    say "setup: TORCH=$TORCH is neither 'pinned' nor 'system' (the torch that $PYTHON already has)."
    exit 1
    ;;
esac
echo "$TORCH" >"$VENV/.torch"
say "setup: done. 'make train' runs the quickstart, 'make test' the tests, '$VENV/bin/crrl doctor' checks this machine."
