#!/usr/bin/env bash
# The disk register's README, and its course's tests, against Ringfort: a leader and its members; SET and GET over the text
# protocol; holders of messages killed, as many as TOLERANCE says.
source "$(dirname "$0")/../coming-from/walk.sh"

# Sends stdin's lines to the text port of place N, by that client.
text() {
    local client=$1 place=$2
    "$client" "127.0.0.1:$((6666 + place))" text
}

sets() {
    seq "$1" "$2" | sed 's/.*/SET & message & of many/'
}

# Checks all messages from 1 on, read at the text port of a place.
all_there() {
    local place=$1 count=$2
    seq "$count" | sed 's/.*/message & of many/' >wanted
    seq "$count" | sed 's/^/GET /' | go_client "127.0.0.1:$((6666 + place))" pipe >got
    cmp -s wanted got || wrong "of $count messages, $(diff wanted got | grep -c '^>') are not as they were set: $(diff wanted got | head -n 3)"
}

# A node's last report says that it holds so many keys.
reports() {
    cat "$1.out" "$1.err" | grep -F "127.0.0.1:$2" | tail -n 1 | grep -Eqw -- "$3"
}

# family N MEMBERS COUNT: tolerance N, so many members, so many SETs.
family() {
    local tolerance=$1 members=$2 count=$3 member client connection loads=()
    step "TOLERANCE=$tolerance, a leader and $members members"
    rm -rf disk-register-data
    # As some editors write it; launchers and nodes read the same number.
    printf '\357\273\277# besides the leader\r\ntolerance = +%s\r\n' "$tolerance" >tolerance.conf
    start leader "$launchers/leader" -members "$members" -report 1s
    for ((member = 1; member <= members; member++)); do
        start "member$member" "$launchers/member" -members "$members" -report 1s "$member"
    done
    serving leader "${!pids[@]}"

    step "$count SETs from four clients at once"
    for ((connection = 0; connection < 4; connection++)); do
        sets $((connection * count / 4 + 1)) $(((connection + 1) * count / 4)) | text go_client 0 >"answers$connection" &
        loads+=($!)
    done
    for connection in "${loads[@]}"; do
        wait "$connection" || wrong "a client has failed"
    done
    [ "$(cat answers? | sort | uniq -c | awk '{print $1, $2}')" = "$count OK" ] ||
        wrong "not all SETs are OK: $(cat answers? | sort | uniq -c | sort -rn | head -n 3)"
    all_there 0 "$count"
    # 2N + 1 replicas, so with these families every node keeps every message: as even as it gets.
    for ((member = 0; member <= members; member++)); do
        soon reports "$(test $member -eq 0 && echo leader || echo member$member)" $((5555 + member)) "$count"
    done

    for ((member = 1; member <= tolerance; member++)); do
        step "holder $member of $tolerance is killed; all messages are read again, and more are set"
        crash "member$member"
        all_there 0 "$count"
        says OK text go_client 0 <<<"SET 1 message 1 of many"
    done
}

step "what can't be right is refused before anything is made"
mkfifo pipe.conf
fails 'no regular file' timeout 20 "$launchers/leader" -tolerance pipe.conf
echo 'TOLERANCE=99' >tolerance.conf
fails 'line 1 is not TOLERANCE=N' "$launchers/leader"
rm pipe.conf tolerance.conf
fails '0 to 63' "$launchers/member" -members 70
fails 'overlap' "$launchers/member" -port 6665
[ ! -e disk-register-data ] || wrong "a launcher that refused has made disk-register-data"

family 2 4 1000

step "the text protocol, by its own client and by others"
says $'OK\nhello  world, ünï\nNOT_FOUND\nOK\nNOT_FOUND\nOK\nBye' "$launchers/client" <<'LINES'
SET 5001 hello  world, ünï

get 5001
GET 5002
del 5001
Get 5001
set 5001 kept
QUIT
LINES
for client in go_client python_client; do
    says_like $'ERROR [^\n]+\nERROR [^\n]+\nERROR [^\n]+\n[^\n]+\n[^\n]+\n[^\n]+\nkept' text $client 0 <<'LINES'
SET
GET
FETCH 1
HELP
STATS
NODES
GET 5001
LINES
done

says $'OK\nNOT_FOUND\nOK\n2\nOK\nNOT_FOUND' go_client 127.0.0.1:6666 pipe <<<$'SET 5003 1\nGET 5004\nSET 5003 2\nGET 5003\nDEL 5003\nGET 5003'
large=$(printf '%01000000d' 7)
for client in go_client python_client; do
    says "OK"$'\n'"$large" text $client 0 <<<"SET 5005 $large"$'\n'"GET 5005"
done

step "Store and Retrieve over gRPC, by any node"
for client in go_client python_client; do
    for node in 127.0.0.1:5555 127.0.0.1:5559; do
        for service in "" storage-; do
            says OK $client $node ${service}store 6001 "by $client, $service"
            says "6001: by $client, $service" $client $node ${service}retrieve 6001
            says "by $client, $service" text $client 0 <<<"GET 6001"
            fails 'NotFound|NOT_FOUND' $client $node ${service}retrieve 6002
        done
    done
    says $'127.0.0.1:5555\n127.0.0.1:5556\n127.0.0.1:5557\n127.0.0.1:5558\n127.0.0.1:5559' $client 127.0.0.1:5555 family
done

step "the members come back, each to the first place that is free; then the leader is killed"
start member1 "$launchers/member" 1
serving member1
start member2 "$launchers/member" -- --text-get-reply ok
serving member2
grep -q '127.0.0.1:5557' member2.out || wrong "the member without a number did not take the second place"
crash leader
all_there 1 1000
says_like $'OK\nOK.*still there' text python_client 2 <<<$'SET 7001 still there\nGET 7001'
start leader "$launchers/leader"
serving leader
all_there 0 1000

step "one more node waits, and a client's Join makes it a member"
five=$'127.0.0.1:5555\n127.0.0.1:5556\n127.0.0.1:5557\n127.0.0.1:5558\n127.0.0.1:5559'
start member5 "$RINGFORT" start --id member5 --addr 127.0.0.1:5560 --data-dir disk-register-data/member5 --text-addr 127.0.0.1:6671 --invited
within 20 grep -q 'waits at 127.0.0.1:5560' member5.err
says_like 'ERROR .*waits at.*' text go_client 5 <<<"GET 1"
says "$five"$'\n127.0.0.1:5560' go_client 127.0.0.1:5555 join 127.0.0.1 5560
serving member5
says "$five"$'\n127.0.0.1:5560' python_client 127.0.0.1:5560 join 127.0.0.1 5560
all_there 5 1000

step "tolerance.conf is read again: more copies than there are nodes are refused"
refused() {
    text go_client 0 <<<"SET 8001 too many" | grep -q '^ERROR '
}
taken() {
    text go_client 0 <<<"SET 8001 again" | grep -qx OK
}
echo '  tolerance = 7  # of six' >tolerance.conf
soon refused
says_like 'ERROR .+' text go_client 0 <<<"SET 8002 too many"
says NOT_FOUND text go_client 0 <<<"GET 8002"
echo 'what?' >tolerance.conf
sleep 2
says_like 'ERROR .+' text go_client 0 <<<"SET 8001 still too many"
echo 'TOLERANCE=2' >tolerance.conf
soon taken

for name in "${!pids[@]}"; do
    crash "$name"
done
family 3 6 9000
