#!/usr/bin/env bash
# The README of the store over gRPC, against Ringfort: a server, a client that puts and gets; and what it had planned: Raft, CRUD
# from any node, and a node that is killed.
source "$(dirname "$0")/../coming-from/walk.sh"

step "a server and a client, each without any flags"
start server "$launchers/server"
serving server
says $'Stored and replicated\nname = Ada' "$launchers/client" <<<$'put name Ada\nget name\nexit'
says Ada "$launchers/client" get name
says OK "$launchers/client" put name Grace
says Grace "$launchers/client" get name
interrupt server

step "three of them"
peers=(node1=127.0.0.1:50051 node2=127.0.0.1:50052 node3=127.0.0.1:50053)
node() {
    local others=("${peers[@]}")
    unset "others[$1-1]"
    start "node$1" "$launchers/server" -- --id "node$1" --addr "127.0.0.1:5005$1" --data-dir "data$1" \
        --peers "$(IFS=, && echo "${others[*]}")"
}
node 1
node 2
node 3
serving node1 node2 node3
all=127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053

# crud CLIENT ADDRESS KEY
crud() {
    says OK "$1" "$2" create "$3" one
    fails 'not done: it is there' "$1" "$2" create "$3" again
    says one "$1" "$2" read "$3"
    says OK "$1" "$2" update "$3" two
    says two "$1" "$2" get "$3"
    says OK "$1" "$2" delete "$3"
    fails 'not found' "$1" "$2" read "$3"
    fails 'not done: it is not there' "$1" "$2" update "$3" three
}

step "create, read, update, delete, from any node; by Go from stubs, by Python by reflection"
for port in 50051 50052 50053; do
    crud go_client 127.0.0.1:$port "go-$port"
    crud python_client 127.0.0.1:$port "python-$port"
done
services=$(python_client 127.0.0.1:50052 services)
for service in ringfort.v1.KV ringfort.v1.Cluster family.FamilyService family.StorageService proto.KV kvstore.v1.KVStore \
    kvstore.v1.Replicator kv.KeyValue kv.Cluster; do
    grep -qx -- "$service" <<<"$services" || wrong "$service is not told by reflection"
done
says OK python_client 127.0.0.1:50053 put name Ada
says_like '\{"found": true, "value": "QWRh", .*\}' python_client 127.0.0.1:50052 ringfort.v1.KV/Get '{"key": "bmFtZQ=="}'

step "one is killed: who knows several addresses notices nothing"
for number in $(seq 20); do
    says OK go_client $all put "before/$number" "$number"
done
crash node2
for number in $(seq 20); do
    says "$number" go_client $all read "before/$number"
    says OK go_client $all put "after/$number" "$number"
done
says "$(seq 20 | sort | sed 's/.*/after\/& = &/')" python_client 127.0.0.1:50053 list after/
crud go_client $all last

step "it comes back"
node 2
serving node2
says Ada python_client 127.0.0.1:50052 read name
says "$(seq 20 | sort | sed 's/.*/before\/& = &/')" go_client 127.0.0.1:50052 list before/
