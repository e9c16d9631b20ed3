#!/usr/bin/env bash
# Runs PYTHON ARGUMENT... with a real S3 server: the one that VAULT_TEST_S3_URL (and, other
# than AWS, VAULT_TEST_S3_ENDPOINT) name, with credentials as boto3 finds them; else a Ceph, which is
# installed where root, started on loopback and stopped again.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
if [ -n "${VAULT_TEST_S3_URL:-}" ]; then
    exec "$@"
fi
"$here/ceph-up.sh" install
dir=$(mktemp -d)
trap '"$here/ceph-up.sh" stop "$dir/ceph"; rm -rf "$dir"' EXIT
port=${CEPH_PORT:-7480}
VAULT_TEST_S3_ENDPOINT=$("$here/ceph-up.sh" start "$dir/ceph" "$port")
export VAULT_TEST_S3_TLS_ENDPOINT=https://127.0.0.1:$((port + 2)) AWS_CA_BUNDLE=$dir/ceph/tls/ca.pem
export VAULT_TEST_S3_ENDPOINT VAULT_TEST_S3_URL=s3://vault-test VAULT_TEST_S3_USERS=ceph
export AWS_ACCESS_KEY_ID=vault AWS_SECRET_ACCESS_KEY=vault-secret AWS_DEFAULT_REGION=us-east-1
"$1" -c 'import boto3, os
s3 = boto3.client("s3", endpoint_url=os.environ["VAULT_TEST_S3_ENDPOINT"])
s3.create_bucket(Bucket="vault-test", ObjectLockEnabledForBucket=True)'
"$@"
