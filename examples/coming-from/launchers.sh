#!/usr/bin/env bash
# The launchers, without starting anything: what Ringfort is told for the command lines that the five systems' READMEs have, and
# what is refused. Each launcher's flags are read as Go reads them.
set -euo pipefail
cd "$(dirname "$0")/.."
examples=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export RINGFORT=echo
checked=0
# How long a launcher may take.
LAUNCH_S_MAX=20

# becomes WANTED LAUNCHER WORDS…
becomes() {
    local wanted=$1 got
    shift
    got=$(timeout "$LAUNCH_S_MAX" "$examples/$1" "${@:2}" 2>stderr) || got="ended with $?: $(cat stderr)"
    if [ "$got" != "$wanted" ]; then
        printf 'launchers.sh: line %s: %s\nwanted: %s\n   got: %s\n' "${BASH_LINENO[0]}" "$*" "$wanted" "$got" >&2
        exit 1
    fi
    checked=$((checked + 1))
}

# refused PATTERN LAUNCHER WORDS…: one line on stderr, exit code 2.
refused() {
    local wanted=$1 code=0
    shift
    timeout "$LAUNCH_S_MAX" "$examples/$1" "${@:2}" >stdout 2>stderr </dev/null || code=$?
    if [ $code -ne 2 ] || [ -s stdout ] || [ "$(wc -l <stderr)" -ne 1 ] || ! grep -Eq -- "$wanted" stderr; then
        printf 'launchers.sh: line %s: %s\nwanted: %s\n   got: code %s, %s\n' "${BASH_LINENO[0]}" "$*" "$wanted" "$code" "$(cat stderr stdout)" >&2
        exit 1
    fi
    checked=$((checked + 1))
}

# explains LAUNCHER: each way to ask for help is answered with its usage, on stdout, and exit code 0.
explains() {
    local flag got
    for flag in -h --help -help; do
        got=$("$examples/$1" "$flag" 2>stderr </dev/null) || got="ended with $?: $(cat stderr)"
        if [[ $got != *"usage: $(basename "$1")"* ]] || [ -s stderr ]; then
            printf 'launchers.sh: %s %s\n   got: %s\n' "$1" "$flag" "$got" >&2
            exit 1
        fi
        checked=$((checked + 1))
    done
}

# What a launcher that starts a node does with flags of `ringfort start`: only after `--` are they handed on.
starts=(disk-register/leader disk-register/member grpc-crud/server raft-kv/node grpc-kvstore/server kv-cluster/node)
for launcher in "${starts[@]}" disk-register/client grpc-crud/client raft-kv/cli grpc-kvstore/client kv-cluster/client; do
    explains "$launcher"
done
for launcher in "${starts[@]}"; do
    refused 'there is no flag --shards; .* after --' "$launcher" --shards 8
done

# Disk register.
others=member1=127.0.0.1:5556,member2=127.0.0.1:5557
leader="start --id leader --addr 127.0.0.1:5555 --peers $others,member3=127.0.0.1:5558,member4=127.0.0.1:5559 \
--data-dir disk-register-data/leader --text-addr 127.0.0.1:6666 --report-every 10s"
becomes "$leader" disk-register/leader
echo 'tolerance = 2 # of four' >tolerance.conf
becomes "$leader --tolerance-file tolerance.conf --replicas 5 --shards 8" disk-register/leader -- --shards 8
echo 'TOLERANCE=1' >other.conf
for member in "disk-register/member --members 2 -tolerance=other.conf" "disk-register/member -members=2 -tolerance other.conf 1"; do
    # shellcheck disable=SC2086
    becomes "start --id member1 --addr 127.0.0.1:5556 --peers leader=127.0.0.1:5555,member2=127.0.0.1:5557 \
--data-dir disk-register-data/member1 --text-addr 127.0.0.1:6667 --report-every 10s --tolerance-file other.conf --replicas 3" $member
done
refused 'no member 5: the family has 4 members' disk-register/member 5
refused '-members x: give a number' disk-register/leader -members x
refused 'a port is a number' disk-register/leader -port 65533
refused 'there is no flag -nosuch' disk-register/leader -nosuch 1
refused '-members needs a value' disk-register/leader -members
refused '--foo comes after 2: .* after --' disk-register/member 2 --foo
refused '-members comes after 2: flags come before it' disk-register/member 2 -members 3
refused 'a word too many: 3;' disk-register/member 2 3
refused 'a word too many: 1;' disk-register/leader 1
refused 'no member x' disk-register/member x
[[ $("$examples/disk-register/member" 2 --help) == *"usage: member"* ]]
refused 'is no address' disk-register/client 6666
refused 'is no address' disk-register/client 127.0.0.1:6666 more
refused '--foo is no address' disk-register/client --foo
refused 'there is no nosuch.conf: make it' disk-register/leader -tolerance nosuch.conf
exec 9>disk-register-data/member1.lock
flock 9
refused 'member 1 runs already' disk-register/member 1
becomes "$("$examples/disk-register/member" 2)" disk-register/member
becomes "$("$examples/disk-register/member" 2) --shards 8" disk-register/member -- --shards 8
becomes "$("$examples/disk-register/member" 2) --foo 3" disk-register/member 2 -- --foo 3
refused 'no place is free: the family has 1 member,' disk-register/member -members 1
exec 9>&-
refused 'no member 1: the family has no members' disk-register/member -members 0 1

# Its tolerance file, read as Ringfort reads it, and what is refused before anything is started.
reads() {
    # shellcheck disable=SC2059
    printf "$1" >other.conf
    becomes "start --id leader --addr 127.0.0.1:5555 --peers member1=127.0.0.1:5556 --data-dir disk-register-data/leader \
--text-addr 127.0.0.1:6666 --report-every 10s --tolerance-file other.conf --replicas $2" disk-register/leader -members 1 -tolerance other.conf
}
unreadable() {
    # shellcheck disable=SC2059
    printf "$1" >other.conf
    refused "other.conf.* $2" disk-register/leader -tolerance other.conf
}
reads '\357\273\277TOLERANCE=2' 5
reads 'TOLERANCE=+2\r\n' 5
reads '\n# how many\n\tTolerance = 03 # besides\n' 7
unreadable 'TOLERANCE=99\n' 'line 1 is not TOLERANCE=N with N from 1 to 7'
unreadable '# x\nTOLERANCE=0' 'line 2 is not TOLERANCE=N'
unreadable 'TOLERANCE=2 or 3' 'line 1 is not TOLERANCE=N'
unreadable 'TOLERANCE=1\nTOLERANCE=1' 'line 2 says TOLERANCE a second time'
unreadable 'TOLERANCE=1\nLEVEL=2' 'line 2 is not TOLERANCE=N'
unreadable '# TOLERANCE=1' 'does not say TOLERANCE=N'
mkfifo pipe.conf
refused 'pipe.conf is no regular file' disk-register/leader -tolerance pipe.conf
refused 'pipe.conf is no regular file' disk-register/member -tolerance pipe.conf 1
refused 'is no regular file' disk-register/leader -tolerance .
mv tolerance.conf good.conf
ln -s nowhere tolerance.conf
refused 'tolerance.conf is no regular file' disk-register/leader
mv good.conf tolerance.conf
becomes "$leader --tolerance-file tolerance.conf --replicas 3" disk-register/leader -- --replicas 3

# Its members, ports and hosts.
refused '-members 70: give a number from 0 to 63' disk-register/leader -members 70
refused '-members 64: give a number from 0 to 63' disk-register/member -members 64
[ "$("$examples/disk-register/leader" -members 08)" = "$("$examples/disk-register/leader" -members 8)" ]
"$examples/disk-register/leader" -members 63 >stdout
refused 'gRPC takes ports 6663 to 6667 and text 6666 to 6670, which overlap' disk-register/leader -port 6663
refused 'which overlap: choose two that are more than 0 apart' disk-register/leader -members 0 -port 6666
refused 'text 5551 to 5555, which overlap' disk-register/member -text 5551
rm tolerance.conf
for host in ::1 '[::1]'; do
    becomes "start --id leader --addr [::1]:5555 --peers member1=[::1]:5556 --data-dir disk-register-data/leader \
--text-addr [::1]:6666 --report-every 10s" disk-register/leader -host "$host" -members 1
done
refused '-host 127.0.0.1:5555: give an address or a name, without a port' disk-register/leader -host 127.0.0.1:5555
refused 'without a port' disk-register/leader -host=
for host in 0.0.0.0 ::; do
    refused 'every address of this machine' disk-register/leader -host $host
done
refused 'from 1 to 65535' disk-register/client 127.0.0.1:70000

# CRUD over gRPC.
becomes "start" grpc-crud/server
becomes "start --id node1 --data-dir d1" grpc-crud/server -- --id node1 --data-dir d1
refused 'a word too many: node1;' grpc-crud/server node1
becomes "shell" grpc-crud/client
becomes "put name Ada" grpc-crud/client put name Ada

# The store on Raft.
nodes=node1=localhost:50051,node2=localhost:50052,node3=localhost:50053
becomes "start --id node1 --addr 127.0.0.1:50051 --peers node2=localhost:50052,node3=localhost:50053 \
--advertise localhost:50051 --data-dir raft1" \
    raft-kv/node --port=50051 --raft_port=12001 --node_id=node1 --raft_dir=raft1 --bootstrap=true --peers=$nodes
export RAFT_KV_PEERS=$nodes
becomes "start --id node2 --addr 127.0.0.1:50052 --peers node1=localhost:50051,node3=localhost:50053 \
--advertise localhost:50052 --data-dir raft2" \
    raft-kv/node -port 50052 -raft_port 12002 -node_id node2 -raft_dir raft2 -join_addr localhost:50051
unset RAFT_KV_PEERS
becomes "start --id node1 --addr 127.0.0.1:50051 --bootstrap" raft-kv/node --bootstrap
becomes "start --id node2 --addr 127.0.0.1:50052 --join localhost:50051" \
    raft-kv/node --port=50052 --node_id=node2 --join_addr=localhost:50051
becomes "start --id node2 --addr 127.0.0.1:50052 --invited --data-dir raft2" raft-kv/node --port=50052 --node_id=node2 --raft_dir=raft2
refused 'a word too many: node2;' raft-kv/node --bootstrap node2
becomes "start --id node1 --addr 127.0.0.1:50051 --bootstrap --shards 8" raft-kv/node --bootstrap -- --shards 8
becomes "start --id b --addr 10.0.0.2:1 --peers a=10.0.0.1:1 --insecure" raft-kv/node -node_id b -port 1 -peers a=10.0.0.1:1,b=10.0.0.2:1
becomes "start --id b --addr [::1]:2 --peers a=[::1]:1" raft-kv/node -node_id b -port 2 -peers 'a=[::1]:1,b=[::1]:2'
refused 'have to be the same' raft-kv/node -node_id b -peers a=10.0.0.1:1,b=10.0.0.2:1
refused 'write NAME=HOST:PORT' raft-kv/node -peers 10.0.0.1:1
becomes "start --id node1 --addr 127.0.0.1:50051 --invited" raft-kv/node --bootstrap=false
refused 'true or false' raft-kv/node --bootstrap=maybe
becomes $'--addr localhost:50051 put hello world\n--addr localhost:50051 get hello' raft-kv/cli
becomes $'--addr b:2,c:3 put hello world\n--addr b:2,c:3 get hello' raft-kv/cli b:2,c:3
refused 'there is no flag --addr' raft-kv/cli --addr b:2
refused 'a word too many: c:3;' raft-kv/cli b:2 c:3

# The replicated store with a shell.
becomes "start --addr 127.0.0.1:5001 --peers 127.0.0.1:5002,127.0.0.1:5003" grpc-kvstore/server 5001 5002,5003
becomes "start --addr 127.0.0.1:5001 --peers  --data-dir d" grpc-kvstore/server 5001 -- --data-dir d
becomes "start --addr 127.0.0.1:5001 --peers 127.0.0.1:5002 --data-dir d" grpc-kvstore/server 5001 5002 -- --data-dir d
refused '--data-dir comes after 5001: .* after --' grpc-kvstore/server 5001 5002 --data-dir d
refused 'a word too many: 5003;' grpc-kvstore/server 5001 5002 5003
becomes "--addr 127.0.0.1:5001 shell --literal-quotes" grpc-kvstore/client 5001
refused 'there is no flag --foo' grpc-kvstore/client --foo
refused 'usage' grpc-kvstore/client 5001 5002
refused 'usage' grpc-kvstore/server
refused 'usage' grpc-kvstore/client
refused 'a port is a number' grpc-kvstore/server 70000
refused 'a port is a number' grpc-kvstore/server 5001 5002,x

# The cluster with versions.
peers=node2=127.0.0.1:50052,node3=127.0.0.1:50053
becomes "start --id node1 --addr 127.0.0.1:50051 --peers  --replicas 2" kv-cluster/node
becomes "start --id node1 --addr 0.0.0.0:50051 --advertise 127.0.0.1:50051 --peers $peers --replicas 3 --insecure" \
    kv-cluster/node -id node1 -addr 0.0.0.0:50051 -peers "$peers" -replicas 2
becomes "start --id node1 --addr 0.0.0.0:50051 --advertise node1:50051 --peers node2:50051,node3:50051 --replicas 1 --insecure" \
    kv-cluster/node -addr=:50051 --peers=node2:50051,node3:50051 --replicas=1 --advertise=node1:50051
becomes "start --id node1 --addr 127.0.0.1:50051 --peers  --replicas 2 --data-dir d" kv-cluster/node -- --data-dir d
refused 'a word too many: node2;' kv-cluster/node node2
refused 'write HOST:PORT' kv-cluster/node -addr 50051
becomes "start --id node1 --addr [::1]:50051 --peers  --replicas 2" kv-cluster/node -addr '[::1]:50051'
refused 'IPv6 is written in brackets' kv-cluster/node -addr ::1:50051
for loopback in '[::1]' localhost; do
    becomes "start --id node1 --addr [::]:50051 --advertise $loopback:50051 --peers $loopback:50052 --replicas 2 --insecure" \
        kv-cluster/node -addr '[::]:50051' -peers "$loopback:50052"
done
refused 'give a number' kv-cluster/node -replicas 0
refused 'give a number from 1 to 64' kv-cluster/node -replicas 65
becomes "--addr localhost:50051 get -- name" kv-cluster/client get name
becomes "--addr 127.0.0.1:50052 get --raw -- name" kv-cluster/client -addr 127.0.0.1:50052 get -raw name
printf '#!/bin/sh\nexit 1\n' >absent
chmod +x absent
code=0
got=$(RINGFORT=$work/absent timeout "$LAUNCH_S_MAX" "$examples/kv-cluster/client" get name) || code=$?
if [ $code -ne 1 ] || [ "$got" != "(not found)" ]; then
    echo "launchers.sh: a key that is not there: exit code $code, $got" >&2
    exit 1
fi
becomes "ok" kv-cluster/client set name -5
becomes "ok" kv-cluster/client --addr=localhost:50053 delete name
refused 'usage' kv-cluster/client increment name
refused 'usage' kv-cluster/client get name --foo
refused 'there is no flag --foo' kv-cluster/client --foo get name
echo "launchers: $checked command lines are as they should be"
