#!/bin/sh
# Makes the secrets that compose.yaml reads, each a file of its own in secrets/; those that are there
# stay. `docker compose` mounts them as they are and containers run as users of their own, so others may
# read the files and nobody else may enter the folder.
set -eu
cd "$(dirname "$0")/secrets"
chmod 0700 .
for name in jwt api-key redis-edge redis-producer redis-operator redis-cluster grafana-admin; do
  [ -s "$name" ] && continue
  # 256 bits; SIGNAL_JWT_SECRET asks for at least 32 bytes.
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$name"
  chmod 0444 "$name"
  echo "made secrets/$name"
done
