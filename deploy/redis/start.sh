#!/bin/sh
# Starts Redis with the users of users.acl, whose passwords are files and never arguments.
#
#   start.sh SECRETS_FOLDER [redis-server argument]...
#
# SECRETS_FOLDER holds redis-edge, redis-producer, redis-operator and, while there is a TypeScript
# fleet, redis-typescript. A secret that is missing switches its user off.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
secrets=$1
shift
# Redis reads the file once, at its start; it holds hashes only.
users=$(mktemp)
grep -v '^#' "$here/users.acl" >"$users"
for name in edge producer typescript operator; do
  word=$(printf '%s_PASSWORD_SHA256' "$name" | tr '[:lower:]' '[:upper:]')
  if [ -s "$secrets/redis-$name" ]; then
    # Without the line's end, as Signal reads it.
    hash=$(tr -d '\r\n' <"$secrets/redis-$name" | sha256sum | cut -d ' ' -f 1)
    sed -i "s/#$word/#$hash/" "$users"
  else
    sed -i "s/ on #$word/ off/" "$users"
  fi
done
exec redis-server "$here/redis.conf" --aclfile "$users" "$@"
