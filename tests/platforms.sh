#!/bin/sh
# Runs the tests under every Python >= 3.11 that is here, each in a virtualenv outside the tree.
#
#   sh tests/platforms.sh [PYTEST ARGUMENT...]
#
# PYTHONS names the interpreters; default: python3.11 and later on PATH, but the one of .venv,
# which `make test` has run. VENVS names a directory where the virtualenvs are kept for the next
# time. Installs exactly requirements/dev.txt, with hashes. Exit 1: the tests failed under one.
set -eu
cd "$(dirname "$0")/.."

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null; }

first() { # of that name on PATH that starts: a version manager's shim may be before it
    echo "$PATH" | tr ':' '\n' | while read -r directory; do
        if version_of "$directory/$1" > /dev/null; then
            echo "$directory/$1"
            break
        fi
    done
}

found() {
    tested=$(version_of .venv/bin/python || true)
    for minor in 11 12 13 14 15; do
        [ "3.$minor" = "$tested" ] || first "python3.$minor"
    done
}

install() { # into virtualenv $2 with interpreter $1
    "$1" -m venv "$2"
    pip="$2/bin/python -m pip install --quiet --disable-pip-version-check"
    $pip --require-hashes -r requirements/dev.txt
    $pip --no-deps --no-build-isolation --editable .
    touch "$2/.complete"
}

pythons=${PYTHONS-$(found)}
[ -n "$pythons" ] || { echo "no other Python >= 3.11 here; PYTHONS names them"; exit 0; }
work=$(mktemp -d "${TMPDIR:-/tmp}/vault-pytest.XXXXXX")
clean_up() { # objects with locks may be immutable where root ran the tests
    chattr -R -f -i "$work" 2> /dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
venvs=${VENVS:-$work}
mkdir -p "$venvs"

failed=
for python in $pythons; do
    version=$(version_of "$python") || { echo "$python does not start" >&2; exit 1; }
    venv="$venvs/$version-$(cat pyproject.toml requirements/dev.txt | cksum | cut -d ' ' -f 1)"
    echo "=== Python $version"
    [ -f "$venv/.complete" ] || install "$python" "$venv"
    "$venv/bin/python" -m pytest -p no:cacheprovider --basetemp "$work/$version-tests" -q "$@" ||
        failed="$failed $version"
done
[ -z "$failed" ] || { echo "failed under Python$failed" >&2; exit 1; }
