#!/bin/bash
# Exits 0 if the edge of this container says that it is live. Bash alone, so that the image needs no
# HTTP client.
#
#   healthcheck [PATH [PORT]]     /livez on 3000 unless told otherwise
set -euo pipefail
path=${1:-/livez}
port=${2:-3000}
exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$path" >&3
read -r -t 2 status <&3
[[ $status == "HTTP/1.1 200 "* ]]
