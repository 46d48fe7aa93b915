#!/usr/bin/env bash
# The README of the store on Raft, against Ringfort: three nodes by its own command lines, the client that puts and gets, a node that is
# stopped, a fourth one that joins, and a fifth one that a client has join.
source "$(dirname "$0")/../coming-from/walk.sh"

node() {
    case $1 in
        1) start node1 "$launchers/node" --port=50051 --raft_port=12001 --node_id=node1 --raft_dir="$work/raft1" --bootstrap=true ;;
        2) start node2 "$launchers/node" --port=50052 --raft_port=12002 --node_id=node2 --raft_dir="$work/raft2" --join_addr=localhost:50051 ;;
        3) start node3 "$launchers/node" --port=50053 --raft_port=12003 --node_id=node3 --raft_dir="$work/raft3" --join_addr=localhost:50051 ;;
        4) start node4 "$launchers/node" --port=50054 --raft_port=12004 --node_id=node4 --raft_dir="$work/raft4" --join_addr=localhost:50052 ;;
        5) start node5 "$launchers/node" --port=50055 --raft_port=12005 --node_id=node5 --raft_dir="$work/raft5" ;;
    esac
}

# Whether a node has so many replicas, and nothing moves.
has_replicas() {
    local status
    status=$("$RINGFORT" --addr "127.0.0.1:$1" status)
    grep -Eq "^node${1: -1} +[^ ]+ +up +([a-z]+ +)?[0-9]+ +$2 " <<<"$status" && ! grep -q moving <<<"$status"
}

step "2. start the cluster"
node 1
serving node1
node 2
node 3
serving node2 node3
for port in 50051 50052 50053; do
    within 60 has_replicas $port 64
done

step "3. interact with the cluster"
says $'OK\nworld' "$launchers/cli"
for client in go_client python_client; do
    for port in 50051 50052 50053; do
        says $'Put hello = world\nGet hello = world' $client localhost:$port
        says "Put $client/$port = ünï" $client localhost:$port put "$client/$port" ünï
    done
    fails 'NotFound|NOT_FOUND' $client localhost:50051 get nothing
    fails 'FailedPrecondition|FAILED_PRECONDITION' $client localhost:50051 join node3 localhost:12004 localhost:50054
    fails 'InvalidArgument|INVALID_ARGUMENT' $client localhost:50051 join node4 localhost:12004 localhost
    says Joined $client localhost:50051 join node3 localhost:12003 127.0.0.1:50053
done

# Everything that was put is there, and the client's two calls work.
all_well() {
    local client port
    for client in go_client python_client; do
        says $'Put hello = world\nGet hello = world' $client "localhost:$1"
        for port in 50051 50052 50053; do
            says "Get $client/$port = ünï" $client "localhost:$1" get "$client/$port"
            says "Put $client/$port = ünï" $client "localhost:$1" put "$client/$port" ünï
        done
    done
}

step "4. test fault tolerance: Ctrl+C on one of three"
interrupt node3
all_well 50051
all_well 50052

step "and kill -9 on another, when that one is back"
node 3
serving node3
crash node1
all_well 50052
all_well 50053
node 1
serving node1
all_well 50051

step "a fourth node joins: a quarter of the replicas moves, at most"
node 4
serving node4
within 60 has_replicas 50054 48
all_well 50054

step "a fifth node is started without a word of a cluster, and a client's Join makes it a member"
node 5
within 20 grep -q 'waits at 127.0.0.1:50055' node5.err
says Joined go_client localhost:50051 join node5 localhost:12005 localhost:50055
serving node5
says Joined python_client localhost:50055 join node5 localhost:12005 127.0.0.1:50055
all_well 50055
crash node5
node 5
serving node5
all_well 50055
