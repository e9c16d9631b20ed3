#!/bin/sh
# What the vault promises, shown on real files: snapshot, tamper check, proven restore.
# `make demo` calls it with the virtualenv's bin first in PATH. Ends with exit 0 only if
# everything came out as promised; leaves nothing behind.
set -eu
exec 2>&1 # messages between the results, where they belong
export LC_ALL=C
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/vault-demo.XXXXXX")
trap 'status=$?; rm -rf "$work"; exit $status' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$work"

step() { printf '\n=== %s\n' "$*"; }
show() { printf '    $'; printf ' %s' "$@"; printf '\n'; "$@"; }
fail() { printf 'demo: BROKEN PROMISE: %s\n' "$*" >&2; exit 1; }
must_exit() { # CODE COMMAND...
    wanted=$1
    shift
    got=0
    show "$@" || got=$?
    [ "$got" -eq "$wanted" ] || fail "exit $got instead of $wanted"
    printf '    exit %s, as it must\n' "$got"
}
as() { # MACHINE: whose keys, state and cache are used from here on
    mkdir -p "$work/$1/keys"
    export VAULT_KEYS="$work/$1/keys" XDG_CONFIG_HOME="$work/$1" XDG_STATE_HOME="$work/$1/state" \
        XDG_CACHE_HOME="$work/$1/cache"
}
copy_library() { # Python's own standard library, without what was installed beside it
    python3 - "$1" << 'END'
import shutil, sys, sysconfig
skip = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages", "config-*")
shutil.copytree(sysconfig.get_paths()["stdlib"], sys.argv[1], symlinks=True, ignore=skip)
END
    chmod -R u+rwX "$1"
}
change() { # as people do: edit, add, move, remove
    echo "# edited" >> "$1/argparse.py"
    echo "print('new')" > "$1/brand_new.py"
    mv "$1/json" "$1/json_moved"
    rm "$1/this.py"
}
flip_bit() { # in the middle of FILE
    middle=$(($(wc -c < "$1") / 2))
    byte=$(od -An -tu1 -j "$middle" -N 1 "$1" | tr -d ' ')
    chmod u+w "$1"
    # shellcheck disable=SC2059 - the format is the byte
    printf "$(printf '\\%03o' $((byte ^ 1)))" |
        dd of="$1" bs=1 seek="$middle" conv=notrunc 2> /dev/null
}
largest_pack() { find "$1/packs" -type f -exec ls -S {} + | head -n 1; }

unset VAULT_REPO
(umask 077 && od -An -tx1 -N 16 /dev/urandom | tr -d ' \n' > passphrase)
export VAULT_PASSPHRASE_FILE="$work/passphrase"

step "a repository, and its keys; only writer.key stays on the host, the others go to a safe"
as safe
show vault --version
show vault init "$work/repository" --host web --yes | tee init.txt
root=$(sed -n 's/^root *0:\([0-9a-f]\{64\}\).*/\1/p' init.txt)
[ -n "$root" ] || fail "init did not print the root's digest"
as host
mv "$work/safe/keys/writer.key" "$VAULT_KEYS/"

step "first snapshot: Python's standard library"
copy_library source
echo "    $(find source -type f | wc -l) files, $(du -sk source | cut -f 1) KiB on disk"
show vault snapshot source --name library

step "some changes, second snapshot: only what is new is stored"
change source
show vault snapshot source --name library | tee snapshot.txt
head=$(sed -n 's/^head *//p' snapshot.txt)
[ -n "$head" ] || fail "snapshot did not print the ledger's head"
show vault list

step "the host can add snapshots but read none"
must_exit 12 vault restore library "$work/stolen"
[ ! -e "$work/stolen" ] || fail "the host restored something"

step "restore with the recovery key; 'recovered' is said only after the disk was read back"
as safe
show vault --trust "$head" restore --verify library "$work/restored"
diff -r --no-dereference source restored || fail "restored files differ"
echo "    diff -r: no difference"
if command -v rsync > /dev/null; then
    [ -z "$(rsync -aHn --delete --checksum --itemize-changes source/ restored/)" ] ||
        fail "restored attributes differ"
    echo "    rsync -aHn --checksum: no difference in owner, mode, times, links"
fi
vault export-checksums library > sums
(cd restored && sha256sum --check --quiet "$work/sums") || fail "checksums differ"
echo "    export-checksums | sha256sum --check: $(wc -l < sums) files match"

step "every stored byte against what was signed"
show vault verify

step "anyone can check the history and every stored object, without keys and without the vault"
if command -v openssl > /dev/null; then
    show sh "$here/docs/offline-check.sh" repository "$root"
else
    echo "    no openssl here: left out"
fi

step "one bit of one pack is flipped in a copy of the repository; restoring from it is refused"
as elsewhere
cp "$work/safe/keys/recovery.key" "$VAULT_KEYS/"
cp -R repository tampered
flip_bit "$(largest_pack tampered)"
mkdir precious
echo "do not lose me" > precious/file
ls -ldin --time-style=full-iso precious precious/file > before
must_exit 4 vault --repo "$work/tampered" --trust "$head" restore --verify --replace library "$work/precious"
ls -ldin --time-style=full-iso precious precious/file | cmp - before || fail "the target was touched"
[ "$(cat precious/file)" = "do not lose me" ] || fail "the target was touched"
[ -z "$(find "$work" -maxdepth 1 -name '.precious*')" ] || fail "something was left beside the target"
echo "    the target is as it was, and nothing was left beside it"
if command -v openssl > /dev/null; then
    ! sh "$here/docs/offline-check.sh" tampered "$root" > /dev/null 2>&1 ||
        fail "the offline check did not notice"
    echo "    docs/offline-check.sh sees it too"
fi

printf '\ndemo: all as promised\n'
