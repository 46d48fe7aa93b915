#!/usr/bin/env bash
# The crate rustyline 19.0.0, on a pseudo-terminal.
#
# Usual guess: what is typed or pasted before the prompt is there waits in the terminal, as with readline or libedit, and each line of it
#   is one line that `readline()` returns.
# Seen: with the default features each call of `readline()` reads ahead into a buffer of its own and drops it when it returns, so of three
#   lines that arrive at once the second and the third are gone. The feature `buffer-redux` keeps the buffer from one call to the next. A
#   bracketed paste (ESC [ 200 ~ ... ESC [ 201 ~, what terminals send for a paste) is one line with line breaks in it either way.
#     default, three lines at once       one|exit
#     buffer-redux, three lines at once  one|two|three|exit
#     default, bracketed paste           one\ntwo\nthree|exit
#     buffer-redux, bracketed paste      one\ntwo\nthree|exit
#   (`exit` is sent once the others have been read, or two seconds later.)
# Why it matters: a shell for a store is where people paste several commands. Without the feature all but the first are lost without a
#   word; with a bracketed paste all of them become the value of the first.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

make() {
    mkdir -p "$tmp/$1/src"
    cat >"$tmp/$1/Cargo.toml" <<TOML
[package]
name = "lines"
version = "0.0.0"
edition = "2024"
[dependencies]
rustyline = { version = "=19.0.0"$2 }
[workspace]
TOML
    cat >"$tmp/$1/src/main.rs" <<'RUST'
use std::io::Write;

fn main() {
    let mut editor = rustyline::DefaultEditor::new().unwrap();
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(std::env::args().nth(1).unwrap()).unwrap();
    while let Ok(line) = editor.readline("> ") {
        write!(file, "{}|", line.escape_debug()).unwrap();
        if line == "exit" {
            return;
        }
    }
}
RUST
    CARGO_TARGET_DIR="$tmp/target-$1" cargo build -q --manifest-path "$tmp/$1/Cargo.toml"
}
make default ""
make buffer-redux ', features = ["buffer-redux"]'

cat >"$tmp/type.py" <<'PY'
import os, pty, sys, time

program, log, keys = sys.argv[1], sys.argv[2], sys.argv[3].encode().decode("unicode_escape").encode()
child, terminal = pty.fork()
if child == 0:
    os.environ["TERM"] = "xterm"
    os.execv(program, [program, log])
time.sleep(0.5)
os.write(terminal, keys)
time.sleep(2)
os.write(terminal, b"exit\r")
try:
    while os.read(terminal, 4096):
        pass
except OSError:
    pass
os.waitpid(child, 0)
print(open(log).read().rstrip("|"))
PY
seen=$(
    for keys in 'three lines at once=one\rtwo\rthree\r' 'bracketed paste=\x1b[200~one\rtwo\rthree\x1b[201~\r'; do
        for features in default buffer-redux; do
            log="$tmp/log-$features-${#keys}"
            echo "$features, ${keys%%=*}  $(python3 "$tmp/type.py" "$tmp/target-$features/debug/lines" "$log" "${keys#*=}")"
        done
    done
)
echo "$seen"
diff <(echo "$seen" | sed 's/  */ /g') - <<'SEEN'
default, three lines at once one|exit
buffer-redux, three lines at once one|two|three|exit
default, bracketed paste one\ntwo\nthree|exit
buffer-redux, bracketed paste one\ntwo\nthree|exit
SEEN
