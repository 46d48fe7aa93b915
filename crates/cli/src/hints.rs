//! Words of other stores' tools, mostly of etcdctl, redis-cli and TiKV's, that are none of ours, and what does the same here.
//!
//! One table. A hint names only what there is: a test in `args` reads every command and every flag in the table by the
//! command line's own definition, and tries every word.

/// Words that are refused at one place, and what is said of them.
#[derive(Debug)]
pub(crate) struct Hint {
    /// The command after which they stand; none: in place of a command, or, if they are flags, after any.
    pub(crate) after: Option<&'static str>,
    /// In lower case, but for short flags. Two words are a command and the word after it.
    pub(crate) words: &'static [&'static str],
    pub(crate) says: &'static str,
}

const fn command(words: &'static [&'static str], says: &'static str) -> Hint {
    Hint { after: None, words, says }
}

const fn flag(words: &'static [&'static str], says: &'static str) -> Hint {
    Hint { after: None, words, says }
}

const fn after(command: &'static str, words: &'static [&'static str], says: &'static str) -> Hint {
    Hint { after: Some(command), words, says }
}

const NO_TTL: &str = "keys have no time to live yet";
const USERS: &str =
    "`ringfort user list` shows the users, and `ringfort user add NAME` adds one; `--user` says who asks";
const NO_SECRET: &str = "no flag takes a secret, since everybody on the machine could read it: there are `--password-file` and `--token-file`";
const TLS: &str = "`--ca FILE` speaks TLS with nodes of that CA; `--cert` and `--key` are the client's own certificate and its key";
const START_TLS: &str = "`--tls-cert`, `--tls-key` and `--tls-ca` say with which files a node speaks TLS";
const JOIN: &str = "a node joins by `ringfort start --id node4 --join 127.0.0.1:50051`; `ringfort cluster plan join 1` shows what would move";
const REMOVE: &str = "`ringfort cluster remove NODE` empties a node and removes it; `ringfort cluster drain NODE` only empties it";
const BALANCED: &str =
    "replicas and leaders are balanced by themselves; `ringfort cluster plan` shows what will move";
const REPLICAS: &str = "`ringfort cluster set replicas=5` changes how many copies there are";
const NO_RANGE_END: &str =
    "a list has no last key yet: there are `--prefix` and `--from`, and `--limit` for how many rows";
const PREFIX: &str = "`ringfort list --prefix P` prints all keys that begin with P";
const ALL_KEYS: &str =
    "`ringfort list` prints keys and values in key order, `ringfort list --prefix P` those that begin with P";
const STATUS: &str = "`ringfort status` shows the nodes, and who leads what";
const WHERE: &str = "`ringfort where KEY` shows a key's slot, its shard, the replicas, and who leads";
const TRANSFER: &str = "`ringfort cluster transfer SHARD NODE` has a node lead a shard; when a node stops, its leaderships move by themselves";
const HEALTH: &str = "`ringfort health` asks whether nodes serve";
const LISTEN: &str = "`ringfort start --addr 127.0.0.1:50051` says where to listen";
const SECONDS: &str = "a run has a length, not a number of requests: `ringfort bench --seconds 10`";
const CLIENTS: &str = "`ringfort bench --clients 8 --in-flight 64` says how many clients there are, and how many requests are under way";

/// All of them. The first that fits holds.
pub(crate) const HINTS: &[Hint] = &[
    // In place of a command.
    command(&["scan", "keys", "range", "ls", "find", "dir"], ALL_KEYS),
    command(&["watch", "subscribe", "psubscribe", "monitor"], "there is no watch yet"),
    command(&["lease", "expire", "pexpire", "expireat", "ttl", "pttl", "persist", "setex", "psetex"], NO_TTL),
    command(&["member list", "members", "nodes", "info", "stats", "topology"], STATUS),
    command(&["member add", "member", "join", "meet", "scale"], JOIN),
    command(
        &["member remove", "member rm", "leave", "forget", "drain", "decommission", "evict", "cordon"],
        REMOVE,
    ),
    command(&["reshard", "rebalance", "balance"], BALANCED),
    after("cluster", &["meet", "add", "join", "scale"], JOIN),
    after("cluster", &["forget", "delete", "leave", "decommission", "evict", "cordon"], REMOVE),
    after(
        "cluster",
        &["uncordon", "activate"],
        "`ringfort cluster undrain NODE` gives a node replicas again",
    ),
    after("cluster", &["rebalance", "reshard", "balance"], BALANCED),
    after("cluster", &["replicate", "replicas", "replication"], REPLICAS),
    after("cluster", &["info", "status", "topology", "slots"], STATUS),
    after("cluster", &["keyslot", "countkeysinslot", "getkeysinslot"], WHERE),
    after("cluster", &["failover", "takeover", "transfer-leader", "move-leader", "elect"], TRANSFER),
    command(&["keyslot", "locate", "whereis", "region", "region key", "which"], WHERE),
    command(
        &["ok-to-stop", "can-stop", "safe-to-restart", "safe-to-kill", "safe-to-remove"],
        "`ringfort safe-to-stop NODE` says whether every shard keeps a majority without a node",
    ),
    command(&["endpoint status", "leader", "leaders"], STATUS),
    command(&["endpoint hashkv", "hashkv", "verify", "fsck"], "`ringfort check` compares all replicas"),
    command(&["endpoint", "ping", "alive", "ready"], HEALTH),
    command(
        &["txn", "multi", "exec", "transaction", "mset", "batch"],
        "`ringfort write` changes several keys of a shard at once",
    ),
    command(&["mget"], "`ringfort get A B` reads several keys"),
    command(&["decr", "decrby"], "`ringfort incr KEY -1` subtracts"),
    command(&["incrby", "increment", "add"], "`ringfort incr KEY 5` adds"),
    command(
        &["exists", "has", "contains"],
        "`ringfort get KEY` ends with exit code 1 if the key is not there",
    ),
    command(
        &["stop", "shutdown", "kill", "restart", "down", "quit", "exit"],
        "a node stops at Ctrl+C in its terminal, or at SIGTERM (`kill PID`); `ringfort start` starts it again",
    ),
    command(&["auth", "users", "role", "acl", "login", "passwd", "adduser", "useradd"], USERS),
    command(
        &["cli", "repl", "console", "sh", "interactive", "connect", "client"],
        "`ringfort shell` takes commands line by line",
    ),
    command(
        &["snapshot restore", "restore", "load"],
        "`ringfort import rows.tsv.gz` reads what `ringfort export rows.tsv.gz` has written",
    ),
    command(
        &["snapshot", "backup", "dump", "save", "bgsave", "make-mirror"],
        "`ringfort export rows.tsv.gz` writes all rows to a file, and `ringfort import rows.tsv.gz` reads them",
    ),
    command(&["rm", "unset", "unlink", "erase", "getdel"], "`ringfort delete KEY` removes a key"),
    command(&["remove"], "`ringfort delete KEY` removes a key, `ringfort cluster remove NODE` a node"),
    command(&["serve", "server", "run", "node", "up", "daemon", "init"], "`ringfort start` runs a node"),
    command(
        &["flushall", "flushdb", "clear", "drop", "wipe", "truncate"],
        "no command deletes everything: stop the nodes, and start them with new, empty directories (`--data-dir`)",
    ),
    command(&["setnx", "lock"], "`ringfort put KEY VALUE --if-absent` sets a key that is not there"),
    command(
        &["cas", "getset", "replace", "update"],
        "`ringfort put KEY NEW --if-value OLD` sets a key that has the value OLD",
    ),
    command(
        &["append", "strlen", "getrange", "hset", "hget", "lpush", "rpush", "sadd", "zadd", "xadd", "eval"],
        "values are bytes without a type: there are `ringfort put`, `ringfort get`, `ringfort delete` and `ringfort incr`",
    ),
    command(
        &["compact", "compaction", "defrag", "alarm"],
        "nodes compact by themselves; `ringfort status` tells of a full disk",
    ),
    command(
        &["dbsize", "count"],
        "`ringfort status` estimates it, `ringfort list --keys-only | wc -l` counts",
    ),
    command(&["move-leader", "transfer-leader", "transfer", "operator", "elect", "failover"], TRANSFER),
    command(&["benchmark", "perf", "redis-benchmark"], "`ringfort bench` measures puts and gets"),
    command(&["settings", "env"], "`ringfort config` prints the settings, and where each comes from"),
    command(&["completion"], "`ringfort completions bash` prints a script for bash"),
    // After one command.
    after("check", &["perf", "datascale"], "`ringfort bench` measures puts and gets"),
    after("get", &["--prefix"], PREFIX),
    after("get", &["--from-key"], "`ringfort list --from KEY` prints all keys from this one on"),
    after(
        "get",
        &["--count-only"],
        "`ringfort list --prefix P --keys-only | wc -l` counts the keys that begin with P",
    ),
    after("get", &["--keys-only", "--limit", "--order", "--sort-by", "--range-end", "--end"], ALL_KEYS),
    after(
        "get",
        &["--print-value-only", "--value-only", "-q"],
        "`ringfort get KEY` prints the value alone; with `--raw`, without a newline after it",
    ),
    after(
        "get",
        &["--rev", "--revision"],
        "only the newest value is kept; its revision is in `ringfort get KEY --json`",
    ),
    after("list", &["--end", "--range-end", "--to", "--until", "--stop"], NO_RANGE_END),
    after("list", &["--start", "--from-key", "--after"], "`ringfort list --from KEY` begins at this key"),
    after(
        "list",
        &["--count-only", "--count"],
        "`ringfort list --keys-only | wc -l` counts keys; `--limit 10` prints so many",
    ),
    after("list", &["-n", "--max"], "`ringfort list --limit 10` prints so many"),
    after("list", &["--match", "--pattern"], PREFIX),
    after(
        "list",
        &["--order", "--sort-by", "--reverse"],
        "rows come in the order of their keys, and in no other yet",
    ),
    after(
        "delete",
        &["--prefix", "--range", "--range-end", "--from-key", "-r", "--recursive", "--all"],
        "one key at a time yet: `ringfort list --prefix P --keys-only` prints those that begin with P",
    ),
    after("delete", &["--prev-kv"], "a write does not print the value before it: `ringfort get KEY` does"),
    after(
        "put",
        &["--prev-kv", "get"],
        "a write does not print the value before it: `ringfort get KEY` does",
    ),
    after("put", &["--nx", "nx"], "`ringfort put KEY VALUE --if-absent` sets a key that is not there"),
    after("put", &["--xx", "xx"], "`ringfort put KEY VALUE --if-present` sets a key that is there"),
    after(
        "put",
        &["--cas", "--prev-value"],
        "`ringfort put KEY NEW --if-value OLD` sets a key that has the value OLD",
    ),
    after("put", &["ex", "px", "exat", "pxat", "keepttl"], NO_TTL),
    after(
        "import",
        &["--file-format", "--type"],
        "`ringfort import FILE --format jsonl` says how rows are written",
    ),
    after("bench", &["-n", "--requests", "--total", "--duration", "--time"], SECONDS),
    after("bench", &["-c", "--connections", "--conns", "--concurrency", "--parallel"], CLIENTS),
    after("bench", &["-p", "-P", "--pipeline"], CLIENTS),
    after(
        "bench",
        &["-d", "--data-size", "--val-size", "--size"],
        "`ringfort bench --value-size 100` says how large values are",
    ),
    after(
        "bench",
        &["-r", "--key-space-size"],
        "`ringfort bench --keys 100000` says how many keys there are",
    ),
    after(
        "bench",
        &["-t", "--type"],
        "`ringfort bench --workload mixed` does half puts, half gets; there are put, put-if and get, too",
    ),
    after("bench", &["--cleanup", "--delete"], "`ringfort bench --clean` deletes the keys at the end"),
    after(
        "start",
        &[
            "--port",
            "-p",
            "--listen",
            "-l",
            "--bind",
            "--host",
            "--listen-addr",
            "--listen-address",
            "--address",
            "--listen-client-urls",
            "--listen-peer-urls",
            "--grpc-port",
            "--raft-port",
            "--raft_port",
        ],
        LISTEN,
    ),
    after(
        "start",
        &["--name", "-n", "--node-id", "--node_id", "--node-name", "--node"],
        "`ringfort start --id node1` names the node",
    ),
    after(
        "start",
        &["--bootstrap-expect", "--initial-cluster-state", "--init"],
        "no node is special: a new cluster forms once all nodes listed with `--peers` have met, with `--bootstrap` a node is a \
         cluster of one, and with `--join` it joins one that is there",
    ),
    after(
        "start",
        &["--initial-cluster", "--cluster", "--nodes", "--members", "--seeds", "--seed", "--peer"],
        "`ringfort start --peers node2=127.0.0.1:50052,node3=127.0.0.1:50053` lists the other nodes of a new cluster",
    ),
    after(
        "start",
        &["--join-addr", "--join_addr", "--replicaof", "--retry-join", "--discovery"],
        "`ringfort start --id node4 --join 127.0.0.1:50051` joins the cluster of the node that is there",
    ),
    after(
        "start",
        &["--rack", "--az", "--locality", "--location", "--failure-domain"],
        "`ringfort start --join 127.0.0.1:50051 --zone a` says where a node is",
    ),
    after(
        "start",
        &[
            "--dir",
            "-d",
            "--data",
            "--datadir",
            "--data_dir",
            "--raft-dir",
            "--raft_dir",
            "--path",
            "--storage",
        ],
        "`ringfort start --data-dir d1` says where data is kept",
    ),
    after(
        "start",
        &["--advertise-client-urls", "--initial-advertise-peer-urls", "--advertise-addr"],
        "`ringfort start --advertise HOST:50051` says where others find the node",
    ),
    after(
        "start",
        &["--config-file", "-c"],
        "`ringfort start --config ringfort.toml` reads settings from a file",
    ),
    after(
        "start",
        &["--verbose", "-v", "--log", "--loglevel", "--debug"],
        "`ringfort start --log-level info` says more",
    ),
    after(
        "start",
        &["--daemon", "--daemonize", "--detach"],
        "a node runs in the foreground, until Ctrl+C or SIGTERM",
    ),
    after("dev", &["--port", "-p"], "`ringfort dev --base-port 50051` is the first node's port"),
    after("dev", &["--dir", "-d", "--data"], "`ringfort dev --data-dir data` keeps the data"),
    after("dev", &["-n", "--size", "--count"], "`ringfort dev --nodes 3` says how many nodes"),
    after(
        "start",
        &[
            "--tls",
            "--ca",
            "--cert",
            "--key",
            "--cacert",
            "--cert-file",
            "--key-file",
            "--trusted-ca-file",
            "--peer-cert-file",
            "--peer-key-file",
            "--peer-trusted-ca-file",
        ],
        START_TLS,
    ),
    // After any.
    flag(
        &["-w", "--write-out", "-o", "--output", "--format", "--out-format"],
        "`--json` prints JSON, one object a line",
    ),
    flag(
        &["--host", "--hostname", "--port", "-p", "--endpoint", "--server", "-s", "--address", "--url"],
        "`--addr HOST:PORT` says which nodes to talk to",
    ),
    flag(
        &["--command-timeout", "--dial-timeout", "--keepalive-timeout"],
        "`--timeout 5s` says how long to keep trying",
    ),
    flag(&["--lease", "--ttl", "--ex", "--px", "--expire"], NO_TTL),
    flag(&["-u", "--username"], USERS),
    flag(&["--password", "--pass", "--token"], NO_SECRET),
    flag(
        &[
            "--tls",
            "--cacert",
            "--ca-cert",
            "--cert-file",
            "--key-file",
            "--trusted-ca-file",
            "--tls-ca",
            "--tls-cert",
            "--tls-key",
        ],
        TLS,
    ),
    flag(&["--insecure-transport", "--plaintext"], "without `--ca` a command speaks no TLS"),
];

/// What `word`, which was refused, means here: after `command`, or in place of one. `next` is the word that follows it.
pub(crate) fn hint(command: Option<&str>, word: &str, next: Option<&str>) -> Option<&'static str> {
    let is_flag = word.starts_with('-');
    let word = if is_flag { word.to_owned() } else { word.to_ascii_lowercase() };
    let find = |after: Option<&str>, word: &str| {
        HINTS.iter().find(|hint| hint.after == after && hint.words.contains(&word)).map(|hint| hint.says)
    };
    if let Some(command) = command {
        return find(Some(command), &word).or_else(|| find(None, &word).filter(|_| is_flag));
    }
    let two = next.and_then(|next| find(None, &format!("{word} {}", next.to_ascii_lowercase())));
    two.or_else(|| find(None, &word))
}
