#!/usr/bin/env bash
# Checks every file of deploy/ with the tool that is made for it, and all of them against the program:
# settings, metrics, links. Installs its tools below e2e/.cache, at fixed versions; nothing of the system
# is changed but for missing Debian packages.
#
#   ./scripts/lint-deploy.sh          install what is missing, then check
#   ./scripts/lint-deploy.sh tools    install only (e2e needs Traefik and Prometheus)
set -euo pipefail
cd "$(dirname "$0")/.."

cache=e2e/.cache
requirements=deploy/lint/requirements.txt
bin=$cache/venv/bin
# Debian programs that are unpacked here and not installed, so that no service is started.
debian=$cache/debian
kubernetes_version=1.32
# Of 0 (best) to 100, in tenths as systemd counts it: above, the unit has lost its hardening.
exposure_max=20

passed=0
failed=0

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

unpack() { # program, package
  local program=$debian/usr/bin/$1 download
  [ -x "$program" ] && return
  echo "-- unpacking $2"
  download=$(mktemp -d)
  chmod 0755 "$download"
  (
    cd "$download"
    apt-get download -qq "$2" 2>/dev/null || { as_root apt-get update -qq && apt-get download -qq "$2"; }
  )
  mkdir -p "$debian"
  dpkg -x "$download"/*.deb "$debian"
  rm -r "$download"
}

tools() {
  local stamp=$cache/venv/requirements.txt
  if ! cmp -s "$requirements" "$stamp"; then
    echo "-- installing $(grep -c == "$requirements") Python packages"
    mkdir -p "$cache"
    rm -rf "$cache/venv"
    python3 -m venv "$cache/venv"
    "$bin/pip" install --quiet --disable-pip-version-check --require-virtualenv -r "$requirements"
    cp "$requirements" "$stamp"
  fi
  unpack promtool prometheus
  unpack shellcheck shellcheck
}

check() { # what, command...
  local what=$1 output
  shift
  if output=$("$@" 2>&1); then
    printf 'ok    %s\n' "$what"
    passed=$((passed + 1))
  else
    printf 'FAIL  %s\n%s\n' "$what" "      ${output//$'\n'/$'\n'      }"
    failed=$((failed + 1))
  fi
}

# Kubernetes' own kinds; those of Traefik and the Prometheus operator are looked at by check.py.
kubernetes() {
  local output
  output=$("$bin/kubernetes-validate" --strict -k "$kubernetes_version" deploy/kubernetes/[!k]*.yaml 2>&1) ||
    { echo "$output"; return 1; }
  ! grep -E 'WARN|ERROR' <<<"$output" | grep -vE 'kind (ServiceMonitor|IngressRoute) '
}

# The unit names a binary that is not on this machine; any program will do for the check.
unit() {
  local folder status=0
  folder=$(mktemp -d)
  sed 's#^ExecStart=[^ ]*#ExecStart=/bin/true#' deploy/systemd/signal.service >"$folder/signal.service"
  systemd-analyze verify "$folder/signal.service" || status=1
  systemd-analyze security --offline=yes --threshold="$exposure_max" --no-pager \
    "$folder/signal.service" || status=1
  rm -r "$folder"
  return "$status"
}

# What the image is built from is enough for cargo to see a whole workspace.
build_context() {
  local folder status=0
  folder=$(mktemp -d)
  sed -n 's/^!//p' .dockerignore | tar -c --ignore-failed-read -T - 2>/dev/null | tar -x -C "$folder"
  (cd "$folder" && cargo metadata --locked --offline --no-deps --format-version 1) || status=1
  rm -r "$folder"
  return "$status"
}

checks() {
  local scripts=(scripts/*.sh deploy/*.sh deploy/redis/*.sh)
  check "shell scripts" "$debian/usr/bin/shellcheck" "${scripts[@]}"
  check "YAML" "$bin/yamllint" --strict -c deploy/lint/yamllint.yaml deploy
  check "Dockerfile" "$bin/hadolint" deploy/Dockerfile
  check "Docker build context" build_context
  check "compose files" "$bin/check-jsonschema" --builtin-schema vendor.compose-spec deploy/compose*.yaml
  check "Kubernetes manifests" kubernetes
  check "Prometheus configuration" "$debian/usr/bin/promtool" check config deploy/prometheus/prometheus.yaml
  check "alerts" "$debian/usr/bin/promtool" check rules deploy/prometheus/alerts.yaml
  check "alerts against made-up numbers" "$debian/usr/bin/promtool" test rules deploy/prometheus/alerts.test.yaml
  check "systemd unit" unit
  local part
  for part in metrics settings durations compose kubernetes dashboard alerts links; do
    check "consistency: $part" "$bin/python" deploy/lint/check.py "$part"
  done
}

tools
case "${1:-all}" in
  tools) ;;
  all)
    checks
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    ;;
  *)
    echo "usage: $0 [tools]" >&2
    exit 64
    ;;
esac
