#!/bin/sh
# Checks a repository with sh, openssl, sha256sum, sed and awk alone; needs no key and no vault.
#
#   sh docs/offline-check.sh STORE ROOT_DIGEST
#
# STORE is a directory store, or a bucket copied to a directory. ROOT_DIGEST is what `vault init`
# printed after "0:". Per statement: it follows the one before, a key that the ledger lists signed
# it, a root's key signed it if it adds keys; per snapshot in force: inventory and every object it
# needs have their SHA-256. Not checked: roles, thresholds, revocations, locks, whether the store
# shows its newest statement; of an inventory that is a delta, only its own lines. Of a name only
# the first version is read: junk that was there first ends the check, though the vault steps over
# it. tests/independent/verify_ledger.py (Python and openssl) does more.
set -eu
[ $# -eq 2 ] || { echo "usage: offline-check.sh STORE ROOT_DIGEST" >&2; exit 2; }
store=$1 previous=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root" "$work/writer"

fail() { echo "offline-check: $*" >&2; exit 1; }
member() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$2"; }
digest() { sha256sum < "$1" | cut -c 1-64; }

list_keys() { # of the payload, into directory $1, by key id
    grep -o '"public":"[^"]*"' "$work/payload" | cut -d '"' -f 4 | while read -r public; do
        echo "$public" | openssl base64 -d -A > "$work/der"
        openssl pkey -pubin -inform DER -in "$work/der" -out "$work/pem" 2> /dev/null || continue
        cp "$work/pem" "$work/$1/$(digest "$work/der")"
    done
}

check_signature() { # of the PAE, by a key in one of the directories given
    member keyid "$statement" > "$work/id"
    member sig "$statement" | openssl base64 -d -A > "$work/sig"
    for kind in "$@"; do
        key="$work/$kind/$(cat "$work/id")"
        [ -f "$key" ] || continue
        openssl dgst -sha256 -verify "$key" -signature "$work/sig" "$work/pae" > /dev/null && return
    done
    fail "statement $seq: no valid signature by a listed key"
}

check_objects() { # of a snapshot that is in force
    inventory=$(grep -o '"name":"inventory/[0-9a-f]*"' "$work/payload" | cut -d '"' -f 4)
    [ "inventory/$(digest "$store/$inventory")" = "$inventory" ] || fail "$inventory was changed"
    awk -F '\t' '/^# index/ { exit } /^[0-9a-f]/ { print $1 "  " $4 }' "$store/$inventory" \
        > "$work/sums"
    (cd "$store" && sha256sum --check --quiet "$work/sums") || fail "snapshot $seq is damaged"
    objects=$(awk 'END { print NR }' "$work/sums")
}

seq=0
for statement in "$store"/ledger/????????????????; do
    [ "${statement##*/}" = "$(printf %016d "$seq")" ] || fail "statement $seq is missing"
    member payload "$statement" | openssl base64 -d -A > "$work/payload"
    printf 'DSSEv1 28 application/vnd.in-toto+json %d ' "$(wc -c < "$work/payload")" > "$work/pae"
    cat "$work/payload" >> "$work/pae"
    if [ "$seq" -eq 0 ]; then
        [ "$(digest "$work/pae")" = "$previous" ] || fail "statement 0 is not the root named"
        list_keys root
    else
        grep -q "\"prev\":{\"sha256\":\"$previous\"" "$work/payload" ||
            fail "statement $seq does not follow statement $((seq - 1))"
    fi
    previous=$(digest "$work/pae")
    type=$(member predicateType "$work/payload")
    objects=
    case $type in
        urn:vault:root:v1) check_signature root && list_keys root ;;
        urn:vault:writer:v1) check_signature root && list_keys writer ;;
        urn:vault:snapshot:v1)
            check_signature writer
            printf '%s\n%s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$(member until "$work/payload")" |
                sort -C && check_objects
            ;;
        *) check_signature root writer ;;
    esac
    echo "$seq $type ok${objects:+, $objects objects}"
    seq=$((seq + 1))
done
echo "head $((seq - 1)):$previous"
