#!/usr/bin/env bash
# The README of the replicated store with a shell, against Ringfort: three servers by its own command lines, its example session
# at each of them, and its check list.
source "$(dirname "$0")/../coming-from/walk.sh"

node() {
    case $1 in
        1) start node1 "$launchers/server" 5001 5002,5003 ;;
        2) start node2 "$launchers/server" 5002 5001,5003 ;;
        3) start node3 "$launchers/server" 5003 5001,5002 ;;
    esac
}

step "run: three servers"
node 1
node 2
node 3
serving node1 node2 node3

step "example session, at any node"
session=$'put name Adnan\nget name\nlist\nexit'
answers=$'> Stored and replicated\n> name = Adnan\n> name = Adnan\n> '
for port in 5001 5002 5003; do
    # Ringfort's shell prompts people only.
    says $'Stored and replicated\nname = Adnan\nname = Adnan' "$launchers/client" $port <<<"$session"
    says "$answers" go_client $port <<<"$session"
    says "$answers" python_client $port <<<"$session"
done

step "quotes are a part of a value"
says $'Stored and replicated\nquoted = "a b"' "$launchers/client" 5001 <<<$'put quoted "a b"\nget quoted\nexit'
says $'> quoted = "a b"\n> ' go_client 5002 <<<$'get quoted\nexit'
says $'> Stored and replicated\n> ' python_client 5003 <<<$'put quoted \'tis fine\nexit'
says "quoted = 'tis fine" "$launchers/client" 5002 <<<$'get quoted\nexit'

step "what is missing, empty or wrong"
says_like $'> error: .*NotFound.*\n> Commands: put/get/list/exit\n> Usage: put <key> <value>\n> Usage: get <key>\n> ' \
    go_client 5002 <<<$'get nothing\nhelp\nput a\nget\nquit'
says_like $'> error: NOT_FOUND: .*\n> error: not stored: empty key\n> ' python_client 5003 <<<$'get nothing\nput  value\nexit'

step "Replicate from outside is a write like any other"
says $'> Stored and replicated\n> ' python_client 5001 <<<$'replicate city Izmir\nexit'
says $'> Stored and replicated\n> ' go_client 5002 <<<$'replicate city Ankara, and more\nexit'
says $'> city = Ankara, and more\n> ' go_client 5003 <<<$'get city\nexit'

step "several clients at once; list streams all pairs"
loads=()
for writer in 1 2 3 4; do
    seq -w 100 | sed "s:.*:put many/$writer/& value of &:" | go_client $((5001 + writer % 3)) >"answers$writer" &
    loads+=($!)
done
for load in "${loads[@]}"; do
    wait "$load" || wrong "a client has failed"
done
[ "$(cat answers? | grep -c 'Stored and replicated')" -eq 400 ] || wrong "not all of 400 puts were replicated"
wanted=$(for writer in 1 2 3 4; do seq -w 100 | sed "s:.*:many/$writer/& = value of &:"; done)
for port in 5001 5002 5003; do
    says "city = Ankara, and more"$'\n'"$wanted"$'\n'"name = Adnan"$'\n'"quoted = 'tis fine" "$launchers/client" $port <<<list
done
says "> city = Ankara, and more"$'\n'"$wanted"$'\n'"name = Adnan"$'\n'"quoted = 'tis fine"$'\n'"> " go_client 5002 <<<$'list\nexit'

step "one server is killed: a put says whose copy is missing, and the others answer"
crash node3
says_like $'> .*5003.*\n> late = yes\n> ' go_client 5001 <<<$'put late yes\nget late\nexit'
says $'> late = yes\n> ' python_client 5002 <<<$'get late\nexit'

step "it comes back, and has it all"
node 3
serving node3
says $'> late = yes\n> name = Adnan\n> ' python_client 5003 <<<$'get late\nget name\nexit'
replicated() {
    go_client 5003 <<<$'put late again\nexit' | grep -qx '> Stored and replicated'
}
soon replicated
