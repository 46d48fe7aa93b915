# Read by `leader` and `member` (`source`): the one command line that both come down to.
#
# The family has a fixed number of members, and each has its place: number 0 is the leader. Place N listens on port + N, answers the
# text protocol on text + N, and keeps its data in data/memberN.
source "$(dirname "${BASH_SOURCE[0]}")/../coming-from/launch.sh"
flag_host=127.0.0.1
flag_port=5555
flag_text=6666
flag_members=4
flag_tolerance=tolerance.conf
flag_report=10s
flag_data=disk-register-data
family_flags="host port text members tolerance report data"

family_usage() {
    cat <<END
  -members N       how many members the family has beside the leader; the same for all of them (4)
  -host ADDRESS    where all of them are (127.0.0.1)
  -port PORT       the leader's gRPC port; member N has the one N above it (5555)
  -text PORT       the leader's text port; member N has the one N above it (6666)
  -tolerance FILE  TOLERANCE=N: a SET is OK when N beside the leader have it on disk (tolerance.conf, if it is there)
  -report TIME     how often each prints its state (10s)
  -data DIR        where each has a directory of its own (disk-register-data)
END
    passed_usage
}

check_family() {
    [[ $flag_members =~ ^[0-9]{1,2}$ ]] || refuse "-members $flag_members: give a number from 0 to 62"
    check_port -port "$flag_port"
    check_port -text "$flag_text"
    check_port "the last member's port" $((flag_port + flag_members))
    check_port "the last member's text port" $((flag_text + flag_members))
}

place_name() {
    if [ "$1" -eq 0 ]; then echo leader; else echo "member$1"; fi
}

# Becomes the node of that place.
run_place() {
    local place=$1 other peers=() tolerance=() replicas=() wanted
    for ((other = 0; other <= flag_members; other++)); do
        [ "$other" -eq "$place" ] || peers+=("$(place_name "$other")=$flag_host:$((flag_port + other))")
    done
    # The default name may be missing; a file that was asked for may not.
    if [ ! -e "$flag_tolerance" ] && [ "$flag_tolerance" != tolerance.conf ]; then
        refuse "there is no $flag_tolerance: make it, or leave -tolerance away"
    fi
    if [ -e "$flag_tolerance" ]; then
        tolerance=(--tolerance-file "$flag_tolerance")
        # Copies that survive N crashes, for reading and for writing: 2N + 1. It is a new cluster's for good.
        wanted=$(sed -n 's/^[[:space:]]*[Tt][Oo][Ll][Ee][Rr][Aa][Nn][Cc][Ee][[:space:]]*=[[:space:]]*\([0-9]\{1,2\}\).*/\1/p' \
            "$flag_tolerance" | tail -n 1)
        [ -z "$wanted" ] || replicas=(--replicas $((2 * 10#$wanted + 1 > 3 ? 2 * 10#$wanted + 1 : 3)))
    fi
    exec "$RINGFORT" start --id "$(place_name "$place")" --addr "$flag_host:$((flag_port + place))" \
        --peers "$(IFS=, && echo "${peers[*]}")" --data-dir "$flag_data/$(place_name "$place")" \
        --text-addr "$flag_host:$((flag_text + place))" --report-every "$flag_report" \
        "${tolerance[@]}" "${replicas[@]}" "${passed[@]}"
}
