#!/usr/bin/env bash
# A Prometheus that scrapes the sweeps of this machine, at http://127.0.0.1:9090 until Ctrl-C:
#   launch/monitoring/prometheus.sh [PORT]                    (Debian: apt-get install prometheus)
# Start it on the node of the Ray head. Every Ray keeps a list of its nodes in its folder; those of running ones are copied to where Prometheus looks.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
port=${1:-9090}
data="${XDG_DATA_HOME:-$HOME/.local/share}/wansweep/prometheus"
mkdir -p "$data/targets"
cp "$here/prometheus.yml" "$data/"

look() { # of Rays that sweeps start (wansweep-*/ray), that launch/ starts, and of plain `ray start`
    while :; do
        for list in "${TMPDIR:-/tmp}"/wansweep-*/ray/ "${TMPDIR:-/tmp}"/wansweep-ray.*/ /tmp/ray-*/ /tmp/ray/; do
            name="$data/targets/$(cksum <<<"$list" | cut -d' ' -f1).json"
            if [[ -s $list/prom_metrics_service_discovery.json ]]; then
                cp "$list/prom_metrics_service_discovery.json" "$name.new" && mv "$name.new" "$name" && touch "$name.seen"
            fi
        done
        # What was not there this time is over.
        find "$data/targets" -name '*.seen' -mmin +0.5 -exec sh -c 'rm -f "$1" "${1%.seen}"' _ {} \;
        sleep 3
    done
}
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
trap exit INT TERM
look &
prometheus --config.file="$data/prometheus.yml" --storage.tsdb.path="$data/tsdb" --storage.tsdb.retention.time=30d \
    --web.listen-address="127.0.0.1:$port" &
wait $!
