#!/usr/bin/env bash
# Installs the servers that `just bench-peers` sets beside Signal, each with its own package manager,
# below benches/.cache. What cannot be installed is left out, and said so.
set -uo pipefail
cd "$(dirname "$0")"
cache=$PWD/../.cache
mkdir -p "$cache"

left_out() { printf 'left out: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null; }

# The npm package on Bun is what the end-to-end tests use.
if have npm; then
  (cd ../../e2e && npm ci --no-audit --no-fund --loglevel=error &&
    { node_modules/.bin/bun --version >/dev/null 2>&1 || node node_modules/bun/install.js; }) ||
    left_out "the npm package on Bun: its packages cannot be installed"
  mkdir -p "$cache/socketio" && cp socketio/* "$cache/socketio" &&
    (cd "$cache/socketio" && npm ci --no-audit --no-fund --loglevel=error) ||
    left_out "socket.io: its packages cannot be installed"
else
  left_out "the npm package on Bun, and socket.io: there is no npm"
fi

(cd socketioxide && cargo build --release --locked --quiet --target-dir "$cache/socketioxide") ||
  left_out "socketioxide: it cannot be built"

if have go; then
  [ -x "$cache/bin/centrifugo" ] ||
    GOBIN=$cache/bin go install -trimpath github.com/centrifugal/centrifugo/v6@v6.9.1 ||
    left_out "Centrifugo: it cannot be built"
else
  left_out "Centrifugo: there is no Go"
fi

if [ -x "$cache/sockudo/bin/sockudo" ]; then
  :
elif have protoc; then
  cargo install sockudo --version 5.2.0 --locked --no-default-features --features local,redis --quiet \
    --root "$cache/sockudo" --target-dir "$cache/sockudo/target" ||
    left_out "Sockudo: it cannot be built"
else
  left_out "Sockudo: building it takes protoc (protobuf-compiler)"
fi
