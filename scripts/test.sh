#!/usr/bin/env bash
# Installs what the tests need and is missing, then runs everything that must pass.
#
#   ./scripts/test.sh          all of it (a cold run takes under half an hour on two cores)
#   ./scripts/test.sh rust     formatting, lints, documents, Rust tests
#   ./scripts/test.sh e2e      node and browser tests against the release binary
#   ./scripts/test.sh guard    instruction counts of the micro-benchmarks against the committed ones
#   ./scripts/test.sh deploy   checks of the deployment files
#   ./scripts/test.sh conformance   the public WebSocket suite, where it is at hand
set -euo pipefail
cd "$(dirname "$0")/.."
unset "${!SIGNAL_@}" "${!APP_ENV_WEBSOCKET_REDIS_@}"

say() { printf '\n== %s\n' "$*"; }

apt_install() { # program, package
  command -v "$1" >/dev/null && return
  say "installing $2"
  local sudo=
  [ "$(id -u)" -eq 0 ] || sudo=sudo
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}

rust() {
  apt_install redis-server redis-server
  say "format, lints, documents"
  cargo fmt --all --check
  cargo clippy --workspace --all-targets --quiet -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
  say "the emitter stays thin"
  if cargo tree -p signal-emitter -e normal --prefix none | grep -E '^(hyper|fastwebsockets|clap|signal-server|ring|axum) '; then
    echo "signal-emitter depends on the above" >&2
    return 1
  fi
  if cargo tree -p signal-emitter -e normal,features --prefix none | grep 'signal-core feature "crypto"'; then
    echo "signal-emitter encrypts nothing, and must not ask for what does" >&2
    return 1
  fi
  say "tests"
  cargo test --workspace --quiet
  say "tests of optional features"
  cargo clippy -p signal-server --all-targets --features otel --quiet -- -D warnings
  cargo test -p signal-server --features otel --test otel --quiet
}

# shellcheck disable=SC2120 # `just baseline` has an argument for it.
guard() {
  # Where there is no package to install, the last line of its output says why.
  apt_install valgrind valgrind || true
  command -v valgrind >/dev/null ||
    { say "valgrind is not here and cannot be installed: instruction counts are left out"; return; }
  say "instruction counts"
  cargo clippy -p signal-benches --all-targets --features micro,emitter --quiet -- -D warnings
  cargo build --release --quiet -p signal-benches --features micro --bin signal-micro --bin guard
  target/release/guard "$@"
}

e2e() {
  apt_install redis-server redis-server
  apt_install chromium chromium
  command -v node >/dev/null || { echo "node 20 or later is needed" >&2; return 1; }
  say "release binary"
  cargo build --release --quiet --bin signal
  say "node packages"
  (cd e2e && npm ci --no-audit --no-fund --loglevel=error)
  # Where npm does not run install scripts, bun's has to be run by hand.
  e2e/node_modules/.bin/bun --version >/dev/null 2>&1 || (cd e2e && node node_modules/bun/install.js)
  say "Traefik and Prometheus"
  ./scripts/lint-deploy.sh tools
  say "end to end"
  (cd e2e && npm test)
}

deploy() {
  say "deployment files"
  ./scripts/lint-deploy.sh
}

conformance() {
  local suite=../shared/conformance/autobahn.sh
  [ -f "$suite" ] || { say "conformance suite is not at hand, left out"; return; }
  say "conformance"
  cargo build --release --quiet -p signal-server --example echo
  local port log status=0
  port=$(node -e 's=require("net").createServer().listen(0,"127.0.0.1",()=>{console.log(s.address().port);s.close()})')
  log=$(mktemp)
  target/release/examples/echo "127.0.0.1:$port" 2>"$log" &
  local echo_pid=$!
  until grep -q listening "$log"; do kill -0 "$echo_pid"; done
  bash "$suite" "ws://127.0.0.1:$port/echo" || status=$?
  kill "$echo_pid"
  wait "$echo_pid" 2>/dev/null || true
  # 2: it could not run (there is no Python 2.7 on this machine).
  [ "$status" -ne 2 ] || { say "conformance suite cannot run here, left out"; status=0; }
  return "$status"
}

case "${1:-all}" in
  rust | guard | deploy | e2e | conformance) "$@" ;;
  all)
    rust
    # shellcheck disable=SC2119
    guard
    deploy
    e2e
    conformance
    say "all passed"
    ;;
  *)
    echo "usage: $0 [rust|guard|deploy|e2e|conformance]" >&2
    exit 64
    ;;
esac
