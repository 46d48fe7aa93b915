#!/usr/bin/env bash
# What watches Ringfort, seen by what does: the alert rules and their tests by promtool, /metrics by promtool, and three nodes by a real
# Prometheus, with load, and with one of them killed. Takes Debian's package, without installing it.
# usage: check.sh [DIR]    for the package; kept from run to run
set -euo pipefail
cd "$(dirname "$0")/.."
kept=$(realpath -m "${1:-${CARGO_TARGET_DIR:-target}/prometheus}")
if ! [ -x "$kept/usr/bin/promtool" ]; then
    mkdir -p "$kept"
    (cd "$kept" && { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; } && dpkg -x prometheus_*.deb .) >"$kept.log" 2>&1 || {
        cat "$kept.log" >&2
        exit 1
    }
fi
PATH=$kept/usr/bin:$PATH
promtool check rules ops/prometheus/alerts.yaml
promtool test rules ops/prometheus/alerts_test.yaml
promtool check config ops/prometheus/prometheus.yml ops/prometheus/tls.yml
cargo build --quiet --package ringfort-cli
python3 ops/scrape.py "${RINGFORT:-${CARGO_TARGET_DIR:-target}/debug/ringfort}"
