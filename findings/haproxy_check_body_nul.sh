#!/usr/bin/env bash
# HAProxy 2.6.12 (Debian 12: haproxy 2.6.12-1+deb12u*), with hyper-h2 4.4.1 (PyPI) as the server that is checked.
#
# Usual guess: `http-check send` speaks HTTP/2 and takes a body by a log format (`body-lf`), in which the converter `bin`
#   gives any bytes. So the call of grpc.health.v1, whose body is five zero bytes, can be written as an HTTP check.
# Seen: the configuration is accepted without a warning, and each value is cut at its first zero byte, while the text around
#   it is kept. The content-length fits what is left. `\x00` in a `body` ends it likewise.
#     body-lf "%[bin(0000000000)]"      0 bytes, content-length 0
#     body-lf "%[bin(410000000042)]"    b'A', content-length 1
#     body-lf "ab%[bin(0000000000)]cd"  b'abcd', content-length 4
#     body "A\x00B"                     b'A', content-length 1
# Why it matters: every gRPC message begins with zero bytes, so that no gRPC call can be an HTTP check: the server gets a call
#   without a message, and answers with an error in a header while the HTTP status is 200; a check that looks at the status
#   holds it for a healthy one. It takes `tcp-check send-binary` with whole HTTP/2 frames.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0

# The package and what it needs, unpacked only. apt's lists are made anew, in the temporary folder.
mkdir -p "$tmp/debs" "$tmp/apt/lists/partial" "$tmp/apt/cache/archives/partial"
cd "$tmp/debs"
apt=(apt-get -qq -o "Dir::State::Lists=$tmp/apt/lists" -o "Dir::Cache=$tmp/apt/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update
"${apt[@]}" download 'haproxy=2.6.12-1+deb12u*' 'liblua5.3-0=5.3.*' 'libopentracing-c-wrapper0=1.1.*' 'libopentracing1=1.6.*' \
    'libpcre2-8-0=10.42-*' 'libsystemd0=252.*'
for deb in *.deb; do
    dpkg -x "$deb" "$tmp/root"
done
for folder in "$tmp"/root/lib/*-linux-gnu "$tmp"/root/usr/lib/*-linux-gnu; do
    [ -d "$folder" ] && libraries=${libraries:+$libraries:}$folder
done

cat >"$tmp/check.py" <<'PY'
import os, socket, subprocess, sys, threading, time
import h2.config, h2.connection, h2.events

tmp, libraries = sys.argv[1:]
checks = [
    'body-lf "%[bin(0000000000)]"',
    'body-lf "%[bin(410000000042)]"',
    'body-lf "ab%[bin(0000000000)]cd"',
    r'body "A\x00B"',
]
seen = {}


def answer(sock):
    conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    conn.initiate_connection()
    sock.sendall(conn.data_to_send())
    headers, body = {}, b""
    while data := sock.recv(65536):
        for event in conn.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                headers = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
            elif isinstance(event, h2.events.StreamEnded):
                seen[headers[":path"]] = body, headers["content-length"]
                conn.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
        sock.sendall(conn.data_to_send())


def serve(sock):
    try:
        answer(sock)
    except ConnectionError:
        pass  # HAProxy ends a check with a reset.


def accept(listener):
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=accept, args=(listener,), daemon=True).start()
with open(f"{tmp}/haproxy.cfg", "w") as config:
    config.write("defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n timeout check 5s\n")
    config.write(f"frontend unused\n bind unix@{tmp}/socket\n")
    for number, check in enumerate(checks):
        config.write(f"backend check{number}\n option httpchk\n")
        config.write(f" http-check send meth POST uri /{number} ver HTTP/2 hdr host kv hdr content-type application/grpc {check}\n")
        config.write(f" server s 127.0.0.1:{listener.getsockname()[1]} proto h2 check inter 500ms\n")
command = [f"{tmp}/root/usr/sbin/haproxy", "-f", f"{tmp}/haproxy.cfg"]
environment = dict(os.environ, LD_LIBRARY_PATH=libraries)
tried = subprocess.run([*command, "-c"], env=environment, capture_output=True, text=True)
assert tried.returncode == 0 and "WARNING" not in tried.stderr, tried
haproxy = subprocess.Popen([*command, "-db"], env=environment, stderr=subprocess.DEVNULL)
try:
    for _ in range(200):
        if len(seen) == len(checks):
            break
        time.sleep(0.1)
finally:
    haproxy.terminate()
    haproxy.wait()
for number, check in enumerate(checks):
    body, length = seen[f"/{number}"]
    print(f"{check}  {body or '0 bytes'}, content-length {length}")
PY
"$tmp/venv/bin/python" "$tmp/check.py" "$tmp" "$libraries" | tee "$tmp/seen"

diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
body-lf "%[bin(0000000000)]"  0 bytes, content-length 0
body-lf "%[bin(410000000042)]"  b'A', content-length 1
body-lf "ab%[bin(0000000000)]cd"  b'abcd', content-length 4
body "A\x00B"  b'A', content-length 1
EOF
echo "As described."
