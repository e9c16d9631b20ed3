#!/usr/bin/env bash
# A real Ceph RGW with Object Lock on loopback, from Debian's packages; for tests only.
#
#   ceph-up.sh install            as root: the packages, without starting any service of theirs
#   ceph-up.sh start DIR [PORT]   a cluster of one in DIR, which must be empty; ports PORT to PORT+60
#   ceph-up.sh stop DIR           end the processes whose ids stand in DIR, nothing else
#
# The gateway speaks HTTP on PORT and TLS on PORT+2, for 127.0.0.1 and by an authority of its own,
# whose certificate is DIR/tls/ca.pem.
# One monitor, one OSD that keeps objects in memory, one gateway, no manager, no cephx: it takes
# about 2 s to start and 130 MB. Users: vault (owns the buckets) and vault-writer, vault-restorer,
# vault-auditor, vault-pruner, vault-verifier, vault-log, and vault-stranger, whom no policy names; the access key is the
# user's name, the secret key NAME-secret.
set -euo pipefail

USERS="vault vault-writer vault-restorer vault-auditor vault-pruner vault-verifier vault-log vault-stranger"

install_packages() {
    if [ "$(command -v radosgw ceph-mon ceph-osd ceph | wc -l)" -eq 4 ]; then
        return
    fi
    local policy=/usr/sbin/policy-rc.d
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
        echo "Ceph is not here, and only root can install it, on Debian" >&2
        return 1
    fi
    if [ ! -e "$policy" ]; then # Debian's way to say: don't start services
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod 755 "$policy"
        trap "rm -f $policy" EXIT
    fi
    apt-get update -qq -o Acquire::Retries=3
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
        radosgw ceph-mon ceph-osd ceph-common openssl > /dev/null
}

make_certificates() { # DIR: an authority, and what it says of 127.0.0.1
    mkdir "$1"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=tests" \
        -addext keyUsage=critical,keyCertSign -keyout "$1/ca.key" -out "$1/ca.pem" 2> /dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=gateway" \
        -keyout "$1/server.key" -out "$1/server.csr" 2> /dev/null
    printf '%s\n' subjectAltName=IP:127.0.0.1 authorityKeyIdentifier=keyid > "$1/server.ext"
    openssl x509 -req -days 30 -in "$1/server.csr" -CA "$1/ca.pem" -CAkey "$1/ca.key" \
        -CAcreateserial -extfile "$1/server.ext" -out "$1/server.pem" 2> /dev/null
}

write_configuration() { # DIR PORT CLUSTER-ID
    local dir=$1 port=$2 id=$3
    cat > "$dir/ceph.conf" << END
[global]
fsid = $id
mon host = [v2:127.0.0.1:$((port + 1))/0]
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
keyring = /dev/null
# without cephx the gateway's default, "secure", fails for ever
ms mon client mode = crc
ms client mode = crc
ms bind ipv6 = false
ms bind msgr1 = false
ms bind port min = $((port + 10))
ms bind port max = $((port + 60))
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = $dir/run
admin socket = $dir/run/\$name.asok
crash dir = $dir/run
log file = $dir/log/\$name.log
mon cluster log file = $dir/log/cluster.log
pid file =
# the default of 1 s per step would make the start last 12 s
paxos propose interval = 0.05
paxos min wait = 0.01
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 0
rgw rados pool pg num min = 4
[mon.a]
mon data = $dir/mon
[osd.0]
osd data = $dir/osd
osd objectstore = memstore
memstore device bytes = ${CEPH_BYTES:-4294967296}
[client.rgw]
# without tcp_nodelay every answer with a body waits 40 ms for an acknowledgement
rgw frontends = beast endpoint=127.0.0.1:$port ssl_endpoint=127.0.0.1:$((port + 2)) ssl_certificate=$dir/tls/server.pem ssl_private_key=$dir/tls/server.key tcp_nodelay=1
rgw thread pool size = 64
END
}

in_background() { # DIR NAME COMMAND...
    local dir=$1 name=$2
    shift 2
    setsid "$@" > "$dir/log/$name.out" 2>&1 < /dev/null &
    echo $! > "$dir/$name.pid"
}

await_port() { # PORT
    for _ in $(seq 600); do
        if (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null; then
            return
        fi
        sleep 0.05
    done
    echo "the gateway did not open port $1" >&2
    return 1
}

start() { # DIR PORT
    local port=$2 dir id osd
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    if [ -n "$(ls -A "$dir")" ]; then
        echo "$dir is not empty" >&2
        exit 2
    fi
    trap 'stop "$dir"' ERR
    id=$(cat /proc/sys/kernel/random/uuid)
    osd=$(cat /proc/sys/kernel/random/uuid)
    mkdir "$dir/mon" "$dir/osd" "$dir/run" "$dir/log"
    make_certificates "$dir/tls"
    write_configuration "$dir" "$port" "$id"
    export CEPH_CONF=$dir/ceph.conf
    monmaptool --create --fsid "$id" --addv a "[v2:127.0.0.1:$((port + 1))]" "$dir/monmap" > /dev/null
    ceph-mon -i a --mkfs --monmap "$dir/monmap"
    in_background "$dir" mon ceph-mon -i a -f
    ceph --connect-timeout 30 osd new "$osd" > /dev/null
    ceph-osd -i 0 --mkfs --osd-uuid "$osd" > "$dir/log/mkfs.out" 2>&1
    in_background "$dir" osd ceph-osd -i 0 -f
    for user in $USERS; do
        timeout 120 radosgw-admin -n client.rgw user create --uid="$user" --display-name="$user" \
            --access-key="$user" --secret-key="$user-secret" > "$dir/log/$user.out" 2>&1
    done
    in_background "$dir" rgw radosgw -n client.rgw -f
    await_port "$port"
    echo "http://127.0.0.1:$port"
}

stop() { # DIR
    local name pid
    for name in rgw osd mon; do
        [ -s "$1/$name.pid" ] || continue
        pid=$(cat "$1/$name.pid")
        rm -f "$1/$name.pid"
        kill "$pid" 2> /dev/null || continue
        for _ in $(seq 50); do
            kill -0 "$pid" 2> /dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2> /dev/null || true
    done
}

case ${1:-} in
    install) install_packages ;;
    start) start "${2:?directory}" "${3:-7480}" ;;
    stop) stop "${2:?directory}" ;;
    *)
        sed -n '2,9s/^# *//p' "$0" >&2
        exit 2
        ;;
esac
