#!/usr/bin/env bash
# pgdump.sh DIR SCALE: dumps of a pgbench database into DIR/before and DIR/after, which differ by
# 400 transactions for each unit of SCALE; prints the version. The server listens on a socket only,
# and ends with the script.
set -euo pipefail
place=$1 scale=$2

bin=
for directory in /usr/lib/postgresql/*/bin; do
    [ -x "$directory/pgbench" ] && bin=$directory
done
if [ -z "$bin" ] && command -v pgbench initdb pg_ctl > /dev/null; then
    bin=$(dirname "$(command -v pgbench)")
fi
if [ -z "$bin" ]; then
    echo "no PostgreSQL server with pgbench is installed" >&2
    exit 1
fi

as() { # the server refuses to run as root
    if [ "$(id -u)" -eq 0 ]; then (cd / && setpriv --reuid=postgres --regid=postgres --clear-groups "$@"); else "$@"; fi
}

server=$(mktemp -d)
trap 'as "$bin/pg_ctl" -D "$server/db" -m immediate stop > "$server/stop.log" 2>&1 || true; rm -rf "$server" "$server.log"' EXIT
[ "$(id -u)" -ne 0 ] || chown postgres "$server"
export PGHOST=$server PGDATABASE=postgres PGUSER=bench
{
    as "$bin/initdb" -D "$server/db" -U bench -A trust
    as "$bin/pg_ctl" -D "$server/db" -w -o "-k $server -c listen_addresses= -c fsync=off" -l "$server/log" start
    as "$bin/pgbench" -q -i -s "$scale"
    mkdir -p "$place/before" "$place/after"
    as "$bin/pg_dump" > "$place/before/dump.sql"
    as "$bin/pgbench" -n -t "$((scale * 400))"
    as "$bin/pg_dump" > "$place/after/dump.sql"
} > "$server.log" 2>&1 || {
    tail -n 1 "$server.log" >&2
    exit 1
}
"$bin/pg_dump" --version
