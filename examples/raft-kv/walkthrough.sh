#!/usr/bin/env bash
# The README of the store on Raft, against Ringfort: three nodes by its own command lines, the client that puts and gets, and a
# node that is stopped.
source "$(dirname "$0")/../coming-from/walk.sh"

# What its README does not have: who will be there.
export RAFT_KV_PEERS=node1=localhost:50051,node2=localhost:50052,node3=localhost:50053
node() {
    case $1 in
        1) start node1 "$launchers/node" --port=50051 --raft_port=12001 --node_id=node1 --raft_dir="$work/raft1" --bootstrap=true ;;
        2) start node2 "$launchers/node" --port=50052 --raft_port=12002 --node_id=node2 --raft_dir="$work/raft2" --join_addr=localhost:50051 ;;
        3) start node3 "$launchers/node" --port=50053 --raft_port=12003 --node_id=node3 --raft_dir="$work/raft3" --join_addr=localhost:50051 ;;
    esac
}

step "2. start the cluster"
fails 'list all nodes of a new one' env -u RAFT_KV_PEERS "$launchers/node" --port=50052 --node_id=node2 --join_addr=localhost:50051
node 1
node 2
node 3
serving node1 node2 node3

step "3. interact with the cluster"
says $'OK\nworld' "$launchers/cli"
for client in go_client python_client; do
    for port in 50051 50052 50053; do
        says $'Put hello = world\nGet hello = world' $client localhost:$port
        says "Put $client/$port = ünï" $client localhost:$port put "$client/$port" ünï
    done
    fails 'NotFound|NOT_FOUND' $client localhost:50051 get nothing
    fails 'FailedPrecondition|FAILED_PRECONDITION' $client localhost:50051 join node4 localhost:12004 localhost:50054
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
