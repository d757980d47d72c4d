#!/usr/bin/env bash
# A Grafana with the dashboard of wansweep, at http://127.0.0.1:3000/d/wansweep until Ctrl-C; needs prometheus.sh beside it:
#   launch/monitoring/grafana.sh [PORT]                       (grafana.com has packages; it is in no Debian release)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
data="${XDG_DATA_HOME:-$HOME/.local/share}/wansweep/grafana"
mkdir -p "$data"
export GF_PATHS_DATA=$data GF_PATHS_LOGS=$data/log GF_PATHS_PROVISIONING=$here/grafana/provisioning
export GF_SERVER_HTTP_ADDR=127.0.0.1 GF_SERVER_HTTP_PORT=${1:-3000}
export GF_AUTH_ANONYMOUS_ENABLED=true GF_ANALYTICS_REPORTING_ENABLED=false GF_ANALYTICS_CHECK_FOR_UPDATES=false
export WANSWEEP_DASHBOARDS=$here/grafana/dashboards WANSWEEP_PROMETHEUS=${WANSWEEP_PROMETHEUS:-http://127.0.0.1:9090}
exec grafana server --homepath "${GRAFANA_HOME:-/usr/share/grafana}"
