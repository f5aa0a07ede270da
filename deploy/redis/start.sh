#!/bin/sh
# Starts Redis with the users of users.acl, whose passwords are files and never arguments.
#
#   start.sh SECRETS_FOLDER [redis-server argument]...
#
# SECRETS_FOLDER holds redis-edge, redis-producer, redis-operator, for a node of a cluster redis-cluster
# (and then `--include cluster.conf` is an argument) and, while there is a TypeScript fleet,
# redis-typescript. A secret that is missing switches its user off.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
secrets=$1
shift
# Redis reads the file once, at its start; it holds hashes only.
users=$(mktemp)
grep -v '^#' "$here/users.acl" >"$users"
for name in edge producer typescript operator cluster; do
  word=$(printf '%s_PASSWORD_SHA256' "$name" | tr '[:lower:]' '[:upper:]')
  if [ -s "$secrets/redis-$name" ]; then
    # Without the line's end, as Signal reads it.
    hash=$(tr -d '\r\n' <"$secrets/redis-$name" | sha256sum | cut -d ' ' -f 1)
    sed -i "s/#$word/#$hash/" "$users"
  else
    sed -i "s/ on #$word/ off/" "$users"
  fi
done
set -- --aclfile "$users" "$@"
if [ -s "$secrets/redis-cluster" ]; then
  # How a replica logs in at its master; only this user may read the file.
  login=$(mktemp)
  printf 'masteruser cluster\nmasterauth %s\n' "$(tr -d '\r\n' <"$secrets/redis-cluster")" >"$login"
  set -- --include "$login" "$@"
fi
exec redis-server "$here/redis.conf" "$@"
