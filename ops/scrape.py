#!/usr/bin/env python3
"""Three nodes that speak TLS, watched by a real Prometheus: usage: scrape.py RINGFORT    (prometheus and promtool are on the PATH)

Shows that /metrics is what promtool takes, that all nodes are scraped, that load shows, and that an alert's condition holds once a node is
killed. Ports are the system's choice; everything ends by itself.
"""

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

OPS = Path(__file__).parent
PATIENCE = 60


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def fetch(address, path, accept="*/*", ca=None):
    """What is there, by HTTPS if the certificate of a CA is given."""
    scheme, context = ("https", ssl.create_default_context(cafile=ca)) if ca else ("http", None)
    request = urllib.request.Request(f"{scheme}://{address}{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=5, context=context) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def eventually(what, holds):
    until = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            if found := holds():
                return found
        if time.monotonic() > until:
            sys.exit(f"scrape: {what}: not within {PATIENCE} s")
        time.sleep(0.2)


def main():
    ringfort = os.path.abspath(sys.argv[1])
    *grpc, one, two, three, prometheus = (f"127.0.0.1:{port}" for port in free_ports(7))
    http = [one, two, three]
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as running:
        work = Path(directory)

        def run(name, command):
            log = running.enter_context(open(work / f"{name}.log", "w"))
            process = subprocess.Popen(command, cwd=work, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            running.callback(process.wait)
            running.callback(process.kill)
            return process

        certs = work / "certs"
        for what in [["init"], *(["node", f"node{at + 1}", "--host", "127.0.0.1"] for at in range(3)), ["client", "load"]]:
            subprocess.run([ringfort, "certs", *what, "--dir", certs], check=True, stdout=subprocess.DEVNULL)
        ca = certs / "ca.crt"

        def tls(name):
            return ["--tls-ca", ca, "--tls-cert", certs / f"{name}.crt", "--tls-key", certs / f"{name}.key"]

        nodes = [
            run(
                f"node{at + 1}",
                [ringfort, "start", "--id", f"node{at + 1}", "--addr", grpc[at], "--http", http[at], "--shards", "8"]
                + ["--data-dir", f"data{at + 1}", "--peers", ",".join(other for other in grpc if other != grpc[at])]
                + tls(f"node{at + 1}"),
            )
            for at in range(3)
        ]
        (work / "prometheus.yml").write_text(
            (OPS / "prometheus" / "prometheus.yml")
            .read_text()
            .replace("5s", "1s")
            .replace('["node1:8080", "node2:8080", "node3:8080"]', json.dumps(http))
            .replace("job_name: ringfort", f"job_name: ringfort\n    scheme: https\n    tls_config: {{ca_file: {ca}}}")
        )
        shutil.copy(OPS / "prometheus" / "alerts.yaml", work)
        run("prometheus", ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address={prometheus}", "--storage.tsdb.path=tsdb"])

        def value(query):
            """The number that a query comes to; none if there is no series."""
            _, answer = fetch(prometheus, "/api/v1/query?" + urllib.parse.urlencode({"query": query}))
            result = json.loads(answer)["data"]["result"]
            return float(result[0]["value"][1]) if result else None

        for address in http:
            eventually(f"{address} is ready", lambda address=address: fetch(address, "/readyz?quorum=true", ca=ca))
        load = [ringfort, "bench", "--workload", "mixed", "--keys", "1000", "--seconds", "4", "--addr", ",".join(grpc), "--ca", ca]
        load += ["--cert", certs / "load.crt", "--key", certs / "load.key"]
        subprocess.run(load, check=True, stdout=subprocess.DEVNULL)
        for kind, accept in [("text/plain", "*/*"), ("application/openmetrics-text", "application/openmetrics-text")]:
            told, page = fetch(one, "/metrics", accept, ca)
            assert told.startswith(kind), told
            assert page.rstrip().endswith("# EOF") == (kind != "text/plain"), page[-200:]
            if kind == "text/plain":
                subprocess.run(["promtool", "check", "metrics"], input=page.encode(), check=True)
        eventually("three nodes are scraped", lambda: value('sum(up{job="ringfort"})') == 3)
        puts = eventually("puts are counted", lambda: value('sum(ringfort_request_duration_seconds_count{operation="put"})'))
        assert value("sum(ringfort_shards_led)") == 9, "eight shards and the meta group"
        assert value("max(ringfort_shards_without_leader)") == 0
        assert value("sum(ringfort_log_sync_duration_seconds_count)") > 0
        assert value("count(ringfort_peer_connected == 1)") == 6
        # A series for each pair of nodes, once their clocks have been asked for; they are one clock here.
        eventually("clocks are compared", lambda: value("count(ringfort_peer_clock_offset_seconds)") == 6)
        assert value("max(abs(ringfort_peer_clock_offset_seconds))") < 0.25
        assert value('sum(ringfort_tls_handshakes_total{result="done"})') > 6
        assert value('count(ringfort_tls_certificate_end_timestamp_seconds{of="node"} - time() > 364 * 86400)') == 3
        assert value('count(ringfort_tls_certificate_end_timestamp_seconds{of="ca"} - time() > 3649 * 86400)') == 3
        assert value('count(ALERTS{alertstate="firing"})') is None
        nodes[2].kill()
        eventually("the killed node is missed", lambda: value("count(up == 0)") == 1)
        eventually("an alert is on its way", lambda: value('count(ALERTS{alertname="RingfortNodeDown"})') == 1)
        eventually("the others have lost it", lambda: value('sum(ringfort_peer_connected{peer="node3"})') == 0)
        eventually("its shards are led again", lambda: value("max(ringfort_shards_without_leader)") == 0)
    print(f"scrape: three nodes with TLS under a real Prometheus, {puts:.0f} puts seen, one killed and missed")


if __name__ == "__main__":
    main()
