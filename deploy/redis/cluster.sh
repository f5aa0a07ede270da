#!/bin/sh
# Makes a Redis Cluster of nodes that start.sh has started, unless they are one already: the first half
# masters, the second half their replicas. Waits for the nodes before, and for the cluster after.
#
#   cluster.sh SECRETS_FOLDER ADDRESS:PORT...
#
# Addresses, not names: nodes know each other by them.
set -eu
secrets=$1
shift
first=$1
nodes=$#
REDISCLI_AUTH=$(tr -d '\r\n' <"$secrets/redis-cluster")
export REDISCLI_AUTH

# Of one node, as the cluster's user.
ask() { # address:port, command...
  node=$1
  shift
  redis-cli --no-auth-warning --user cluster -h "${node%:*}" -p "${node##*:}" "$@" 2>/dev/null
}

# Whether every node takes the cluster for whole.
whole() {
  for node in "$@"; do
    info=$(ask "$node" cluster info) || return 1
    case $info in *cluster_state:ok*) ;; *) return 1 ;; esac
    case $info in *"cluster_known_nodes:$nodes"*) ;; *) return 1 ;; esac
  done
}

wait_until() { # seconds, what, command...
  left=$1 what=$2
  shift 2
  until "$@"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { echo "cluster.sh: in vain: $what" >&2; exit 1; }
    sleep 1
  done
}

answers() {
  for node in "$@"; do [ "$(ask "$node" ping)" = PONG ] || return 1; done
}

wait_until 60 "every node answers" answers "$@"
if ask "$first" cluster info | grep -q '^cluster_slots_assigned:0'; then
  redis-cli --no-auth-warning --user cluster --cluster create "$@" --cluster-replicas 1 --cluster-yes
fi
wait_until 60 "the cluster is whole" whole "$@"
echo "the cluster is whole"
