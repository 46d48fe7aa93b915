#!/usr/bin/env bash
# promtool 2.42.0 (Debian 12: prometheus 2.42.0+ds-*), with prometheus_client 0.25.0 (PyPI) as the source of the pages.
#
# Usual guess: what Prometheus prefers to scrape (it asks for OpenMetrics text first) is what `promtool check metrics` of the same package
#   takes, so a page can be checked in the form in which it is served.
# Seen: it reads every page as the older text format, in which a counter's name has its `_total` also in HELP and TYPE. An OpenMetrics page
#   (1.0.0) names the family without it, so each counter is a series without help, and the exit code is 3. `# UNIT` and `# EOF` are taken for
#   comments. The same registry as text format 0.0.4 passes.
#     OpenMetrics 1.0.0:  exit code 3, "jobs_done_total no help text"
#     text format 0.0.4:  exit code 0
# Why it matters: a page that is checked in CI as it is scraped fails for no fault of its own. It has to be asked for without
#   `Accept: application/openmetrics-text`, and whoever serves has to have both forms.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install prometheus_client==0.25.0

# The package, unpacked only. apt's lists are made anew, in the temporary folder.
mkdir -p "$tmp/debs" "$tmp/apt/lists/partial" "$tmp/apt/cache/archives/partial"
cd "$tmp/debs"
apt=(apt-get -qq -o "Dir::State::Lists=$tmp/apt/lists" -o "Dir::Cache=$tmp/apt/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update
"${apt[@]}" download 'prometheus=2.42.0+ds-*'
dpkg -x prometheus_*.deb "$tmp/root"

cat >"$tmp/page.py" <<'PY'
import sys

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

# Without the series that say when a counter began.
disable_created_metrics()
registry = CollectorRegistry()
Counter("jobs_done", "Jobs that are done.", registry=registry).inc(3)
Gauge("jobs_waiting", "Jobs that wait.", registry=registry).set(2)
sys.stdout.buffer.write(openmetrics(registry) if sys.argv[1] == "openmetrics" else generate_latest(registry))
PY
check() {
    "$tmp/venv/bin/python" "$tmp/page.py" "$1" | tee "$tmp/$1.txt" | "$tmp/root/usr/bin/promtool" check metrics 2>&1 || echo "exit code $?"
}
said=$(check openmetrics)
cat "$tmp/openmetrics.txt"
echo "$said"
grep -q '^# EOF' "$tmp/openmetrics.txt"
[ "$said" = $'jobs_done_total no help text\nexit code 3' ]
[ -z "$(check text)" ]
grep -q '^# TYPE jobs_done_total counter' "$tmp/text.txt"
