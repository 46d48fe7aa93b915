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
  -host ADDRESS    where all of them are: an address or a name, without a port (127.0.0.1)
  -port PORT       the leader's gRPC port; member N has the one N above it (5555)
  -text PORT       the leader's text port; member N has the one N above it (6666)
  -tolerance FILE  TOLERANCE=N: a SET is OK when N beside the leader have it on disk (tolerance.conf, if it is there)
  -report TIME     how often each prints its state (10s)
  -data DIR        where each has a directory of its own (disk-register-data)
END
    passed_usage
}

# A cluster is born from so many nodes at most; the leader is one of them.
NODES_MAX=64

# Refuses what can't be right, before anything is made or started.
check_family() {
    [[ $flag_members =~ ^[0-9]{1,2}$ ]] && [ "$((10#$flag_members))" -lt "$NODES_MAX" ] ||
        refuse "-members $flag_members: give a number from 0 to $((NODES_MAX - 1))"
    flag_members=$((10#$flag_members))
    check_port -port "$flag_port"
    check_port -text "$flag_text"
    local port_last=$((flag_port + flag_members)) text_last=$((flag_text + flag_members))
    check_port "the last member's port" "$port_last"
    check_port "the last member's text port" "$text_last"
    [ "$port_last" -lt "$flag_text" ] || [ "$text_last" -lt "$flag_port" ] ||
        refuse "-port $flag_port, -text $flag_text: gRPC takes ports $flag_port to $port_last and text $flag_text to $text_last," \
            "which overlap: choose two that are more than $flag_members apart"
    check_host
    read_tolerance
}

# IPv6 gets the brackets that it has before a port.
check_host() {
    if [[ $flag_host =~ ^\[?([0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\]?$ ]]; then
        flag_host=[${BASH_REMATCH[1]}]
    elif [[ ! $flag_host =~ ^[0-9A-Za-z._-]+$ ]]; then
        refuse "-host $flag_host: give an address or a name, without a port: 127.0.0.1, ::1"
    fi
    case $flag_host in
        0.0.0.0 | '[::]') refuse "-host $flag_host is every address of this machine, and none that the others could use: name one" ;;
    esac
}

# Sets `tolerance` to the number in the tolerance file, or to nothing if there is no such file. By the rules of `ringfort start
# --tolerance-file`, which reads it itself: with another number here, a new cluster would have too few replicas for good.
read_tolerance() {
    local LC_ALL=C file=$flag_tolerance line number=0 mark=$'\xef\xbb\xbf'
    local wanted='^[[:space:]]*[Tt][Oo][Ll][Ee][Rr][Aa][Nn][Cc][Ee][[:space:]]*=[[:space:]]*[+]?0*([1-7])[[:space:]]*$'
    tolerance=
    if [ ! -e "$file" ] && [ ! -L "$file" ]; then
        # The default name may be missing; a file that was asked for may not.
        [ "$file" = tolerance.conf ] || refuse "there is no $file: make it, or leave -tolerance away"
        return
    fi
    # A pipe would be waited for.
    [ -f "$file" ] || refuse "$file is no regular file: make it one, with the line TOLERANCE=N"
    [ -r "$file" ] || refuse "$file can't be read: give yourself permission to"
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        [ "$number" -ne 1 ] || line=${line#"$mark"}
        line=${line%%#*}
        [[ $line =~ [^[:space:]] ]] || continue
        [[ $line =~ $wanted ]] || refuse "$file: line $number is not TOLERANCE=N with N from 1 to 7: correct it"
        [ -z "$tolerance" ] || refuse "$file: line $number says TOLERANCE a second time: leave one of them"
        tolerance=${BASH_REMATCH[1]}
    done < <(head -c 65536 <"$file")
    [ -n "$tolerance" ] || refuse "$file does not say TOLERANCE=N: add that line, with N from 1 to 7"
}

place_name() {
    if [ "$1" -eq 0 ]; then echo leader; else echo "member$1"; fi
}

# How many members there are, in words.
members_there() {
    case $flag_members in
        0) echo "the family has no members" ;;
        1) echo "the family has 1 member" ;;
        *) echo "the family has $flag_members members" ;;
    esac
}

# Becomes the node of that place.
run_place() {
    local place=$1 other peers=() more=()
    for ((other = 0; other <= flag_members; other++)); do
        [ "$other" -eq "$place" ] || peers+=("$(place_name "$other")=$flag_host:$((flag_port + other))")
    done
    if [ -n "$tolerance" ]; then
        more=(--tolerance-file "$flag_tolerance")
        # Copies that survive N crashes, for reading and for writing: 2N + 1. It is a new cluster's for good.
        [[ " ${passed[*]}" == *" --replicas"* ]] || more+=(--replicas "$((2 * tolerance + 1))")
    fi
    exec "$RINGFORT" start --id "$(place_name "$place")" --addr "$flag_host:$((flag_port + place))" \
        --peers "$(IFS=, && echo "${peers[*]}")" --data-dir "$flag_data/$(place_name "$place")" \
        --text-addr "$flag_host:$((flag_text + place))" --report-every "$flag_report" \
        "${more[@]}" "${passed[@]}"
}
