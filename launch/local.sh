#!/usr/bin/env bash
# One machine, with a Ray that outlives single sweeps: starts it, runs the sweeps that are named, stops it.
#   launch/local.sh +sweep=offload weights=/data/wan22                  one sweep; any arguments of `wansweep run`
#   launch/local.sh +sweep=offload -- +sweep=precision base.steps=8     several, one after the other, on the same cluster
# RAY_PORT and RAY_START_ARGS (such as "--num-gpus=4") change how Ray is started. For one sweep `wansweep +sweep=...` alone does as well.
# shellcheck disable=SC2329  # traps call functions
set -euo pipefail -o monitor # monitor: children are groups of their own, so that a Ctrl-C reaches the sweep once, and Ray never
port=${RAY_PORT:-6379}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/wansweep-ray.XXXX")
ray="" sweep="" woken=""

stop() {
    # `ray stop` would stop every Ray of this user; --block stops what it started.
    if [[ -n $ray ]]; then
        kill -TERM "$ray" 2>/dev/null || true
        for _ in {1..60}; do if kill -0 "$ray" 2>/dev/null; then sleep 0.5; fi; done
    fi
    rm -rf "$scratch"
}
trap stop EXIT
pass() { woken=yes && if [[ -z $sweep ]]; then exit 130; else kill -"$1" "$sweep" 2>/dev/null || true; fi; }
trap 'pass INT' INT
trap 'pass TERM' TERM
if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "launch/local.sh: something listens on port $port, maybe another Ray; RAY_PORT=N takes another port" >&2
    exit 2
fi
# Ray takes 127.0.0.1 for the machine's public address, and lets every process of its listen at that or at all of them, unless it is told to
# keep to itself as it does on macOS. Drivers that are to find such a cluster must be told the same.
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0

# NVML counts GPUs in PCI order, so CUDA must too.
read -ra more <<<"${RAY_START_ARGS:-}"
CUDA_DEVICE_ORDER=PCI_BUS_ID ray start --head --block --port="$port" --node-ip-address=127.0.0.1 --dashboard-host=127.0.0.1 \
    --temp-dir="$scratch" --disable-usage-stats "${more[@]}" >"$scratch/start.log" 2>&1 &
ray=$!
# A Ray that listens may still refuse drivers, so it is asked as a driver; one that does not listen would be asked for minutes.
ask='import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)'
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && timeout 60 python -c "$ask" "127.0.0.1:$port" >/dev/null 2>&1; do
    if ((SECONDS > 300)) || ! kill -0 "$ray" 2>/dev/null; then
        cat "$scratch/start.log" >&2
        echo "launch/local.sh: Ray did not start on port $port; RAY_PORT=N takes another port" >&2
        exit 2
    fi
    sleep 0.5
done
worst=0
while (($#)); do
    arguments=()
    while (($#)) && [[ $1 != -- ]]; do
        arguments+=("$1")
        shift
    done
    if (($#)); then shift; fi
    wansweep run "${arguments[@]}" cluster.address="127.0.0.1:$port" & sweep=$!
    while woken="" code=0 && { wait "$sweep" || code=$?; } && [[ -n $woken ]]; do :; done # a trap ends a wait early, and says so
    if ((code == 130)); then exit 130; fi
    if ((code > worst)); then worst=$code; fi
done
exit "$worst"
