#!/usr/bin/env bash
# LocalStack's S3 on loopback, without docker; for tests only.
#
#   localstack-up.sh install VENV            a virtualenv of its own, 240 MB
#   localstack-up.sh start VENV DIR [PORT]   state in DIR, which must be empty
#   localstack-up.sh stop DIR                end the process whose id stands in DIR, nothing else
#
# Keeps everything in memory, starts in 2 s, asks nobody on the network. Any credentials will do.
set -euo pipefail

PACKAGES=( # 4.9.2 with what it does not say that it needs
    "localstack-core[base-runtime]==4.9.2" "moto-ext==5.1.54" "cbor2==5.7.1"
    "cryptography==44.0.3" "pyopenssl==24.3.0" "service-identity==24.2.0"
)

install() { # VENV
    [ -e "$1/.installed" ] && return
    "${PYTHON:-python3}" -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${PACKAGES[@]}"
    touch "$1/.installed"
}

await_health() { # PYTHON PORT
    "$1" - "$2" << 'END'
import http.client, sys, time
for _ in range(600):
    try:
        http.client.HTTPConnection("127.0.0.1", int(sys.argv[1])).request("GET", "/_localstack/health")
    except OSError:
        time.sleep(0.1)
    else:
        sys.exit()
sys.exit(f"LocalStack did not open port {sys.argv[1]}")
END
}

start() { # VENV DIR PORT
    local venv dir port=$3
    venv=$(cd "$1" && pwd)
    mkdir -p "$2"
    dir=$(cd "$2" && pwd)
    if [ -n "$(ls -A "$dir")" ]; then
        echo "$dir is not empty" >&2
        exit 2
    fi
    trap 'stop "$dir"' ERR
    mkdir "$dir/home" "$dir/volume" "$dir/files"
    # its default server binds every address whatever it is told; hypercorn keeps to this one
    (
        cd "$dir"
        export HOME=$dir/home LOCALSTACK_VOLUME_DIR=$dir/volume FILESYSTEM_ROOT=$dir/files
        export SERVICES=s3 GATEWAY_SERVER=hypercorn GATEWAY_LISTEN=127.0.0.1:$port
        export DISABLE_EVENTS=1 SKIP_SSL_CERT_DOWNLOAD=1 DNS_ADDRESS=0
        export ANALYTICS_API=http://127.0.0.1:9 API_ENDPOINT=http://127.0.0.1:9
        export DOCKER_HOST=unix:///nonexistent
        setsid "$venv/bin/python" -m localstack.runtime.main > log 2>&1 < /dev/null &
        echo $! > pid
    )
    await_health "$venv/bin/python" "$port"
    echo "http://127.0.0.1:$port"
}

stop() { # DIR
    local pid
    [ -s "$1/pid" ] || return 0
    pid=$(cat "$1/pid")
    rm -f "$1/pid"
    kill "$pid" 2> /dev/null || return 0
    for _ in $(seq 50); do
        kill -0 "$pid" 2> /dev/null || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2> /dev/null || true
}

case ${1:-} in
    install) install "${2:?virtualenv}" ;;
    start) start "${2:?virtualenv}" "${3:?directory}" "${4:-4566}" ;;
    stop) stop "${2:?directory}" ;;
    *)
        sed -n '2,8s/^# *//p' "$0" >&2
        exit 2
        ;;
esac
