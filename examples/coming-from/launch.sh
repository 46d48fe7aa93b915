# Read by the launchers (`source`): which Ringfort they start, and flags as Go's `flag` package takes them.
#
# RINGFORT is the program; `RINGFORT=echo` shows what a launcher would run.
RINGFORT=${RINGFORT:-ringfort}
me=$(basename "$0")

# Ends the launcher with one line, as wrong usage.
refuse() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 2
}

# Something that the user should know, though it works.
note() {
    printf '%s: %s\n' "$me" "$*" >&2
}

# go_flags "NAME…" "SWITCH…" "$@": sets flag_NAME and flag_SWITCH (true or false), and puts the rest into `rest`. As in Go, one
# dash is as good as two, a value follows after `=` or as the next word, a switch takes a value only after `=`, and the first
# word that is no flag, or `--`, ends them.
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
            refuse "there is no flag $1; -help lists those there are"
        fi
        name=${name%%=*}
        printf -v "flag_${name//-/_}" %s "$value"
        shift
    done
    rest=("$@")
}

# A port as a number, or the end.
check_port() {
    [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] && [ "$2" -le 65535 ] || refuse "$1 $2: a port is a number from 1 to 65535"
}
