# Read by the launchers (`source`): which Ringfort they start, and flags as Go's `flag` package takes them.
#
# RINGFORT is the program; `RINGFORT=echo` shows what a launcher would run.
RINGFORT=${RINGFORT:-ringfort}
me=$(basename "$0")
# Where flags are looked for that the launcher does not have.
elsewhere=

# Ends the launcher with one line, as wrong usage.
refuse() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 2
}

# Something that the user should know, though it works.
note() {
    printf '%s: %s\n' "$me" "$*" >&2
}

# go_flags "NAME…" "SWITCH…" "$@": sets flag_NAME and flag_SWITCH (true or false), and puts the rest into `rest`; for -h and
# --help it prints what `usage` does and ends. As in Go, one dash is as good as two, a value follows after `=` or as the next
# word, a switch takes a value only after `=`, and the first word that is no flag, or `--`, ends them.
go_flags() {
    local names=" $1 " switches=" $2 " name value
    shift 2
    while [[ ${1-} == -?* ]]; do
        if [ "$1" = -- ]; then
            shift
            break
        fi
        name=${1#-}
        name=${name#-}
        value=${name#*=}
        if [ "$name" = h ] || [ "$name" = help ]; then
            usage
            exit 0
        elif [[ $names == *" ${name%%=*} "* ]]; then
            if [[ $name != *=* ]]; then
                [ $# -ge 2 ] || refuse "-$name needs a value: -$name=VALUE"
                value=$2
                shift
            fi
        elif [[ $switches == *" ${name%%=*} "* ]]; then
            [[ $name == *=* ]] || value=true
            case $value in
                1 | t | T | true | TRUE | True) value=true ;;
                0 | f | F | false | FALSE | False) value=false ;;
                *) refuse "-${name%%=*}=$value: it is true or false" ;;
            esac
        else
            refuse "there is no flag $1; -help lists those there are$elsewhere"
        fi
        name=${name%%=*}
        printf -v "flag_${name//-/_}" %s "$value"
        shift
    done
    rest=("$@")
}

# start_flags "NAME…" "SWITCH…" WORDS "$@": `go_flags` for a launcher that starts a node. At most so many words go into `rest`;
# what follows after the first `--`, into `passed`: flags of `ringfort start`.
start_flags() {
    local own=("$1" "$2") words_max=$3 word elsewhere='; those of `ringfort start` go after --'
    shift 3
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        own+=("$1")
        shift
    done
    passed=("${@:2}")
    go_flags "${own[@]}"
    for word in "${rest[@]}"; do
        case $word in
            -h | -help | --help) usage && exit 0 ;;
            -?*) refuse "$word comes after ${rest[0]}: flags come before it$elsewhere" ;;
        esac
    done
    at_most "$words_max" "${rest[@]}"
}

# at_most N "$@": refuses a word too many.
at_most() {
    local words=("${@:2}")
    [ ${#words[@]} -le "$1" ] || refuse "there is a word too many: ${words[$1]}; -help tells how it is used"
}

# The last line of the usage of a launcher that starts a node.
passed_usage() {
    echo "What follows after -- goes to \`ringfort start\` as it is."
}

# A port as a number, or the end.
check_port() {
    [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] && [ "$2" -le 65535 ] || refuse "$1 $2: a port is a number from 1 to 65535"
}
