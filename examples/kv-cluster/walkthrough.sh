#!/usr/bin/env bash
# The README of the cluster with versions, against Ringfort: a single node, three nodes by its own command lines, get, set and delete
# at any of them, the caller's versions, and nodes that fail.
source "$(dirname "$0")/../coming-from/walk.sh"

step "build and run a single node"
start single "$launchers/node" -id node1 -addr 127.0.0.1:50051 -- --data-dir single
serving single
says ok "$launchers/client" set city Oslo
says Oslo go_client get city
interrupt single

node() {
    local data=(-- --data-dir "$work/data$1")
    case $1 in
        1) start node1 "$launchers/node" -id node1 -addr 127.0.0.1:50051 -peers "node2=127.0.0.1:50052,node3=127.0.0.1:50053" -replicas 2 "${data[@]}" ;;
        2) start node2 "$launchers/node" -id node2 -addr 127.0.0.1:50052 -peers "node1=127.0.0.1:50051,node3=127.0.0.1:50053" -replicas 2 "${data[@]}" ;;
        3) start node3 "$launchers/node" -id node3 -addr 127.0.0.1:50053 -peers "node1=127.0.0.1:50051,node2=127.0.0.1:50052" -replicas 2 "${data[@]}" ;;
    esac
}

step "run a 3-node cluster"
node 1
node 2
node 3
serving node1 node2 node3

step "use any node"
says_not_found "$launchers/client" get name
says ok "$launchers/client" set name Ada
says Ada "$launchers/client" -addr=127.0.0.1:50053 get name
says "Ada." sh -c "'$launchers/client' --raw get name && echo ."
says ok "$launchers/client" delete name
says_not_found "$launchers/client" get name
for client in go_client python_client; do
    for port in 50051 50052 50053; do
        says "(not found)" $client -addr 127.0.0.1:$port get name
        says ok $client -addr 127.0.0.1:$port set name "Ada of $port"
        says "Ada of $port" $client get name
        says "Ada of $port" $client -raw get name
        says ok $client -addr 127.0.0.1:$port delete name
    done
done

step "versions: an older write is ignored, and a deleted key stays deleted"
for client in go_client python_client; do
    key=versions/$client
    says ok $client -version 5 set $key five
    says ok $client -addr 127.0.0.1:50052 -version 4 set $key four
    says five $client get $key
    says ignored $client -version 4 replicate $key four
    says ok $client -version 6 replicate $key six
    says six $client -addr 127.0.0.1:50053 get $key
    says ok $client -version 8 delete $key
    says ok $client -version 7 set $key seven
    says ignored $client -version 7 replicate $key seven
    says "(not found)" $client get $key
done

step "the cluster, asked and told"
state=$'node1=127.0.0.1:50051\nnode2=127.0.0.1:50052\nnode3=127.0.0.1:50053\nleader node[123], term [0-9]+'
for client in go_client python_client; do
    says_like "$state" $client -addr 127.0.0.1:50052 state
    before=$($client -addr 127.0.0.1:50052 state)
    says_like 'term [0-9]+, accepted false' $client -addr 127.0.0.1:50052 heartbeat
    says_like 'term [0-9]+, granted false' $client -addr 127.0.0.1:50052 vote
    says "$before" $client -addr 127.0.0.1:50052 state
done

step "a node fails: data remains available, and can be changed"
for number in $(seq 20); do
    says ok go_client set "before/$number" "$number"
done
crash node1
for number in $(seq 20); do
    says "$number" go_client -addr 127.0.0.1:50052 get "before/$number"
    says ok go_client -addr 127.0.0.1:50053 set "after/$number" "$number"
done
says_like "$state" python_client -addr 127.0.0.1:50053 state
node 1
serving node1
for number in $(seq 20); do
    says "$number" go_client get "after/$number"
done

step "all fail at once, and come back"
crash node1
crash node2
crash node3
node 1
node 2
node 3
serving node1 node2 node3
says 20 python_client get after/20
for client in go_client python_client; do
    says ok $client -version 7 set versions/$client seven
    says "(not found)" $client get versions/$client
    says ok $client -version 9 set versions/$client nine
    says nine $client get versions/$client
done
