#!/usr/bin/env bash
# run.sh ceph|localstack PYTHON ARGUMENT...   with that S3 server on loopback, started and stopped
#
# Ceph is installed where root, LocalStack in the virtualenv LOCALSTACK_VENV. Where
# VAULT_TEST_S3_URL (and, other than AWS, VAULT_TEST_S3_ENDPOINT) name a bucket, that is used
# instead of a Ceph, with credentials as boto3 finds them.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
server=$1
shift
if [ "$server" = ceph ] && [ -n "${VAULT_TEST_S3_URL:-}" ]; then
    exec "$@"
fi
dir=$(mktemp -d)
trap '"$here/$server-up.sh" stop "$dir/server"; rm -rf "$dir"' EXIT
case $server in
    ceph)
        port=${CEPH_PORT:-7480}
        "$here/ceph-up.sh" install
        VAULT_TEST_S3_ENDPOINT=$("$here/ceph-up.sh" start "$dir/server" "$port")
        export VAULT_TEST_S3_TLS_ENDPOINT=https://127.0.0.1:$((port + 2))
        export AWS_CA_BUNDLE=$dir/server/tls/ca.pem
        ;;
    localstack)
        venv=${LOCALSTACK_VENV:-.venv-localstack}
        "$here/localstack-up.sh" install "$venv"
        VAULT_TEST_S3_ENDPOINT=$("$here/localstack-up.sh" start "$venv" "$dir/server")
        ;;
    *)
        echo "no server of that name: $server" >&2
        exit 2
        ;;
esac
export VAULT_TEST_S3_ENDPOINT VAULT_TEST_S3_URL=s3://vault-test VAULT_TEST_S3_SERVER=$server
export AWS_ACCESS_KEY_ID=vault AWS_SECRET_ACCESS_KEY=vault-secret AWS_DEFAULT_REGION=us-east-1
"$1" -c 'import boto3, os
s3 = boto3.client("s3", endpoint_url=os.environ["VAULT_TEST_S3_ENDPOINT"])
s3.create_bucket(Bucket="vault-test", ObjectLockEnabledForBucket=True)'
"$@"
