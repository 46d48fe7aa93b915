# Read by the walkthroughs (`source`): nodes that are started, killed and ended, and commands whose output has to be right. A
# walkthrough runs in a directory of its own, which goes when it ends; so does all that it started, by process number.
set -euo pipefail
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
system=$(basename "$(cd "$(dirname "$0")" && pwd)")
target=$(cd "${CARGO_TARGET_DIR:-$examples/../target}" && pwd)
foreign=${FOREIGN_CLIENTS:-$target/foreign}
export RINGFORT=${RINGFORT:-$target/debug/ringfort}
launchers=$examples/$system
# How long a node may take until it serves, and anything else until it is as it should be.
READY_S_MAX=60
work=$(mktemp -d)
cd "$work"
declare -A pids=() commands=()

finish() {
    local code=$? name
    trap - EXIT
    for name in "${!pids[@]}"; do
        kill "${pids[$name]}" 2>/dev/null || true
    done
    for name in "${!pids[@]}"; do
        wait "${pids[$name]}" 2>/dev/null || true
    done
    if [ $code -ne 0 ]; then
        tail -n 5 "$work"/*.out "$work"/*.err >&2 2>/dev/null || true
        echo "$system: FAILED" >&2
    else
        echo "$system: all as its README says, in $SECONDS s"
    fi
    cd /
    rm -rf "$work"
    exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

step() {
    echo "-- $system: $*"
}

wrong() {
    printf '%s: line %s: %s\n' "$system" "${BASH_LINENO[-2]}" "$*" >&2
    exit 1
}

# start NAME COMMAND…: in the background, with its output in NAME.out and NAME.err.
start() {
    local name=$1
    shift
    commands[$name]=$(printf '%q ' "$@")
    : >"$work/$name.out"
    "$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null &
    pids[$name]=$!
}

# Starts again what has ended because the system had just given its port to some connection: these ports are of its range.
revive() {
    local name
    for name in "${!pids[@]}"; do
        if ! kill -0 "${pids[$name]}" 2>/dev/null && grep -q ' is in use: ' "$work/$name.err"; then
            eval "start $name ${commands[$name]}"
        fi
    done
}

# Waits until each of these nodes serves.
serving() {
    local name tries
    for name in "$@"; do
        for ((tries = READY_S_MAX * 10; tries > 0; tries--)); do
            ! grep -q ' serves on ' "$work/$name.out" || break
            revive
            kill -0 "${pids[$name]}" 2>/dev/null || wrong "$name has ended"
            sleep 0.1
        done
        [ "$tries" -gt 0 ] || wrong "$name does not serve after $READY_S_MAX s"
    done
}

# within SECONDS COMMAND…: until it succeeds.
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $until ] || wrong "not in time: $*"
        sleep 0.2
    done
}

# kill -9
crash() {
    kill -KILL "${pids[$1]}"
    wait "${pids[$1]}" 2>/dev/null || true
    unset "pids[$1]"
}

# What Ctrl+C in its terminal does.
interrupt() {
    local pid=${pids[$1]} code=0
    unset "pids[$1]"
    kill -INT "$pid"
    wait "$pid" || code=$?
    [ $code -eq 0 ] || wrong "$1 ended with $code at Ctrl+C"
}

# says WANTED COMMAND…: its output is that, and it exits with 0. A final newline counts for nothing.
says() {
    local wanted=$1 code=0 got
    shift
    got=$("$@" 2>"$work/stderr") || code=$?
    [ $code -eq 0 ] || wrong "$* ended with $code: $(cat "$work/stderr")"
    [ "$got" = "$wanted" ] || wrong "$*"$'\n'"wanted: $wanted"$'\n'"     got: $got"
}

# says_not_found COMMAND…: its output says so, and it exits with 1.
says_not_found() {
    local code=0 got
    got=$("$@" 2>"$work/stderr") || code=$?
    [ $code -eq 1 ] && [ "$got" = "(not found)" ] || wrong "$* ended with $code: $got $(cat "$work/stderr")"
}

# says_like PATTERN COMMAND…: as `says`, for a regular expression.
says_like() {
    local wanted=$1 code=0 got
    shift
    got=$("$@" 2>"$work/stderr") || code=$?
    [ $code -eq 0 ] || wrong "$* ended with $code: $(cat "$work/stderr")"
    [[ $got =~ ^$wanted$ ]] || wrong "$*"$'\n'"wanted, as an expression: $wanted"$'\n'"     got: $got"
}

# fails PATTERN COMMAND…: it exits with something else than 0, and stderr has a line that matches.
fails() {
    local wanted=$1 code=0 got
    shift
    got=$("$@" 2>&1 >/dev/null) || code=$?
    [ $code -ne 0 ] || wrong "$* did not fail"
    grep -Eq -- "$wanted" <<<"$got" || wrong "$*"$'\n'"wanted in stderr: $wanted"$'\n'"     got: $got"
}

# soon COMMAND…: it exits with 0 before long.
soon() {
    local tries
    for ((tries = READY_S_MAX * 2; tries > 0; tries--)); do
        ! "$@" >"$work/soon" 2>&1 || return 0
        sleep 0.5
    done
    wrong "$* still does not work after $READY_S_MAX s: $(cat "$work/soon")"
}

# The clients that are not ours.
go_client() {
    "$foreign/bin/$system" "$@"
}
python_client() {
    PYTHONPATH="$foreign/python" "$foreign/venv/bin/python" "$launchers/client.py" "$@"
}
