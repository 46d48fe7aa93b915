#!/usr/bin/env python3
"""A flame graph of what `perf` has sampled: which functions were under way, below those that had called them.

    perf record --event cpu-clock --freq 499 --call-graph dwarf,16384 --pid PID,PID,… --output perf.data -- sleep 5
    perf script --input perf.data --no-inline --fields comm,ip,sym,dso | benches/flame.py >out.svg [--title TITLE] [--threads log,apply]

    benches/flame.py --load "session put" >out.svg    samples three nodes under a load of account.py's and draws that

The width of a box is the share of samples in which that function, or one called by it, was running; above it are those that it called. Each
thread's stacks stand on its name. Functions of the standard library that only pass a call on are left out, and so is what is narrower than a
pixel or two. Hovering over a box tells its name and share.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from xml.sax.saxutils import escape

WIDTH, ROW, MARGIN, FONT = 1200, 15, 10, 10
# Narrower boxes are not drawn, in pixels.
NARROWEST = 1.5
LETTER = 5.6
DEPTH_MAX = 48
# Beginnings of names, and the colour of what begins so.
COLOURS = [
    ("[kernel] ", "#a9b8c9"),
    ("ringfort", "#e8925b"),
    ("raft", "#d9b44a"),
    ("lsm_tree", "#c3a5d6"),
    ("tokio", "#8cbf88"),
    ("h2", "#7fb9b1"),
    ("hyper", "#7fb9b1"),
    ("tonic", "#7fb9b1"),
    ("tower", "#7fb9b1"),
    ("", "#d8d2c4"),
]
PASSES_ON = re.compile(r"^<?(core|std|alloc)::|^__rust_begin_short_backtrace|^__libc_start|^_start$|^start_thread$|^clone3?$|^main$"
                       r"|^\[unknown\]$|^\[kernel\] (entry_SYSCALL|do_syscall_64|__x64_sys_|ret_from_fork)")
KERNEL = "[kernel] "
# Of the kernel only so much is drawn.
KERNEL_DEPTH_MAX = 5
SAMPLE = re.compile(r"^(\S.*?)\s*$")
FRAME = re.compile(r"^\s+[0-9a-f]+\s+(.*?)\s+\((.*?)\)\s*$")


class Box:
    """A function in one place of the stacks, and those it called."""

    def __init__(self):
        self.count, self.above = 0, {}

    def add(self, names):
        box = self
        box.count += 1
        for name in names:
            box = box.above.setdefault(name, Box())
            box.count += 1

    def depth(self, narrowest):
        shown = [box.depth(narrowest) for box in self.above.values() if box.count >= narrowest]
        return 1 + max(shown, default=0)


def short(symbol, place):
    """Its name without what tells nobody anything: hashes, offsets, type parameters."""
    if "kernel" in place or place.startswith("[k"):
        return KERNEL + symbol.split("+0x")[0]
    name = re.sub(r"\+0x[0-9a-f]+$|::h[0-9a-f]{16}", "", symbol)
    while True:
        fewer = re.sub(r"::<[^<>]*>|(?<=\w)<[^<>]*>", "", name)
        if fewer == name:
            break
        name = fewer
    found = re.match(r"^<(.+?) as (.+?)>::(.+)$", name)
    if found:
        name = f"{found[1].lstrip('&').removeprefix('mut ')}::{found[3]}"
    return name.replace("::{{closure}}", "").replace("{{impl}}", "impl")


def stacks(lines):
    """Each sample: its thread's name, and its functions from the outermost one on."""
    thread, frames = None, []
    for line in lines:
        frame = FRAME.match(line)
        if frame and thread is not None:
            frames.append(short(frame[1], frame[2]))
        elif line.strip() and not line[0].isspace():
            thread, frames = SAMPLE.match(line)[1], []
        elif thread is not None:
            yield thread, frames[::-1]
            thread = None
    if thread is not None:
        yield thread, frames[::-1]


def fold(lines, threads):
    root = Box()
    for thread, frames in stacks(lines):
        name = re.sub(r"\s+\d+.*$", "", thread)
        # perf has no name for some that were short-lived.
        name = "other" if name.startswith(":") else name
        if threads and not name.startswith(tuple(threads)):
            continue
        kept = [frame for place, frame in enumerate(frames) if place == len(frames) - 1 or not PASSES_ON.match(frame)]
        # A function that calls itself, or whose parts have its name, is one box.
        kept = [frame for place, frame in enumerate(kept) if place == 0 or kept[place - 1] != frame]
        inside = sum(frame.startswith(KERNEL) for frame in kept)
        root.add([name, *kept[:len(kept) - max(0, inside - KERNEL_DEPTH_MAX)][:DEPTH_MAX]])
    return root


def fitting(name, letters):
    """As much of the end of its path as has room, or else of its beginning."""
    parts = name.split("::")
    for place in range(len(parts)):
        shown = "::".join(parts[place:])
        if len(shown) <= letters:
            return shown
    return parts[-1][:letters - 1] + "…"


def colour(name, is_thread):
    return "#f2f2f2" if is_thread else next(shade for beginning, shade in COLOURS if name.lstrip("<&").startswith(beginning))


def draw(root, title):
    """The picture."""
    scale = (WIDTH - 2 * MARGIN) / max(root.count, 1)
    height = (root.depth(NARROWEST / scale) + 1) * ROW + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="{FONT}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{MARGIN}" y="{MARGIN + FONT}">{escape(title)} ({root.count:,} samples)</text>',
    ]

    def boxes(box, left, level):
        for name, above in sorted(box.above.items(), key=lambda pair: (pair[0].startswith(KERNEL), pair[0])):
            width = above.count * scale
            if width >= NARROWEST:
                bottom = height - MARGIN - level * ROW
                share = 100 * above.count / root.count
                letters = int((width - 4) / LETTER)
                out.append(f'<g><title>{escape(name)}: {share:.1f} %</title><rect x="{left:.1f}" y="{bottom - ROW + 1}" width="{width - 0.4:.1f}" '
                           f'height="{ROW - 1}" fill="{colour(name, level == 0)}"/>')
                if letters >= 3:
                    out.append(f'<text x="{left + 2:.1f}" y="{bottom - 4}">{escape(fitting(name.removeprefix(KERNEL), letters))}</text>')
                out.append("</g>")
                boxes(above, left, level + 1)
            left += width

    boxes(root, MARGIN, 0)
    return "\n".join([*out, "</svg>", ""])


def sampled(load, seconds):
    """What `perf script` says of three nodes under this load."""
    import account
    import cluster

    flags = next((flags for name, flags in account.LOADS.items() if name.startswith(load)), None)
    if flags is None:
        raise SystemExit(f"{load}: choose one of {', '.join(account.LOADS)}")
    with tempfile.TemporaryDirectory(prefix="ringfort-flame-") as home:
        home = pathlib.Path(home)
        begun = time.monotonic()
        addresses, nodes = cluster.start(home, offset=600)
        try:
            cluster.wait_until_ready(addresses, nodes, begun)
            cluster.bench(addresses, "--workload", "get", "--seconds", 1, *account.KEYS)
            pids = ",".join(str(node.pid) for node in nodes)
            record = ["perf", "record", "--quiet", "--event", "cpu-clock", "--freq", "499", "--call-graph", "dwarf,16384", "--pid", pids, "--output",
                      home / "perf.data", "--", "sleep", str(seconds)]
            recording = subprocess.Popen(record, stderr=subprocess.DEVNULL)
            account.load(addresses, flags, seconds + 1)
            recording.wait()
        finally:
            cluster.stop(nodes)
        script = ["perf", "script", "--input", home / "perf.data", "--no-inline", "--fields", "comm,ip,sym,dso"]
        return subprocess.run(script, check=True, capture_output=True, text=True, errors="replace").stdout.splitlines()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", metavar="NAME")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--title", default="")
    parser.add_argument("--threads", default="", help="only threads whose names begin with one of these")
    options = parser.parse_args()
    lines = sampled(options.load, options.seconds) if options.load else sys.stdin
    root = fold(lines, [name for name in options.threads.split(",") if name])
    if not root.count:
        raise SystemExit("no samples")
    sys.stdout.write(draw(root, options.title or options.load or "all threads"))


if __name__ == "__main__":
    main()
