#!/usr/bin/env bash
# Builds clients that are not Ringfort's, from the published protos: Go ones with nothing but Debian's packages
# (packages.txt), Python ones with PyPI's (requirements.txt). What it makes goes to DIR:
#
#   DIR/go/src/…       stubs in Go, by their go_package       DIR/bin/SYSTEM    examples/SYSTEM/client.go
#   DIR/python         stubs in Python                        DIR/venv          Python with grpcio
#
# usage: clients.sh DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
protos=$here/../../crates/proto/proto
out=${1:?usage: clients.sh DIR}
mkdir -p "$out/bin"
out=$(cd "$out" && pwd)
mapfile -t packages <"$here/packages.txt"
files=(family/family.proto proto/kv.proto kvstore/v1/kvstore.proto kv/kv.proto ringfort/v1/kv.proto ringfort/v1/cluster.proto)

# Where CI runs on a new machine, it installs what is missing.
missing=$(dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>&1 | grep -v '^installed ' || true)
if [ -n "$missing" ]; then
    if [ "${CI:-}" != true ]; then
        echo "clients.sh: packages are missing: apt-get install ${packages[*]}" >&2
        exit 2
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

rm -rf "$out/go/src" "$out/python"
mkdir -p "$out/go/src" "$out/python"
protoc -I "$protos" --go_out="$out/go/src" --go-grpc_out="$out/go/src" "${files[@]}"
# Debian's Go libraries are laid out for GOPATH; nothing is fetched.
export GO111MODULE=off GOPATH="$out/go:/usr/share/gocode" GOCACHE="$out/go-cache" GOFLAGS=
for client in "$here"/../*/client.go; do
    go vet "$client"
    go build -o "$out/bin/$(basename "$(dirname "$client")")" "$client"
done

if ! cmp -s "$here/requirements.txt" "$out/venv/requirements.txt"; then
    rm -rf "$out/venv"
    python3 -m venv "$out/venv"
    "$out/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$out/venv/"
fi
"$out/venv/bin/python" -m grpc_tools.protoc -I "$protos" --python_out="$out/python" --grpc_python_out="$out/python" "${files[@]}"
