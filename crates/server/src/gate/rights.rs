//! What a gate gives to users with few rights, on a node of its own.

use std::net::TcpListener;

use bytes::Bytes;
use ringfort_types::limits::SCAN_PAGE_BYTES;
use ringfort_types::{
    Access, Call, Change, Code, Condition, Consistency, Door, Failure, Index, LayoutChange, Outcome, Part,
    Principal, Reply, Request, Right, UserChange,
};
use tempfile::TempDir;

use super::{Gate, Listing, Rows};
use crate::{Config, Running, start};

const MS: u32 = 5_000;
/// Large enough that a shard's rows of one prefix take several pages.
const VALUE_BYTES: usize = 1_000;
const ROWS: usize = 400;

/// A node of four shards, its gate for the node itself, and what keeps it alive.
async fn node() -> (Gate, Running, TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string();
    let config = Config { shards: Some(4), ..Config::new(&free, directory.path().join("node1")) };
    let mut running = start(config).await.expect("it starts");
    running.serving().await.expect("it serves");
    (running.observer().gate, running, directory)
}

async fn change(gate: &Gate, change: UserChange) -> Result<(), Failure> {
    let call = Call::from(Request::ChangeLayout(LayoutChange::Users(change))).within(MS);
    match gate.ask(call).await.reply {
        Reply::Written(_) => Ok(()),
        other => Err(other.into_failure()),
    }
}

fn over(access: Access, prefix: &str) -> Right {
    Right::Over(access, Bytes::copy_from_slice(prefix.as_bytes()))
}

/// Ada may change the cluster, and bob has these rights.
async fn enforce(gate: &Gate, rights: &[Right]) -> (Principal, Principal) {
    let add = |name: &str| UserChange::Add { name: name.to_owned(), password: None, token: None };
    // The level rises once the node has said that it knows it.
    while let Err(failure) = change(gate, add("ada")).await {
        assert!(failure.message.contains("need level 2"), "{failure}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut changes = vec![add("bob"), UserChange::Grant("ada".to_owned(), Right::Cluster)];
    changes.extend(rights.iter().map(|right| UserChange::Grant("bob".to_owned(), right.clone())));
    changes.push(UserChange::Enforce(true));
    for wanted in changes {
        change(gate, wanted).await.expect("it can be made");
    }
    // Whoever has changed something finds it so.
    let users = gate.layout().expect("born").users.clone();
    assert!(users.enforced);
    let number = |name| users.named(name).expect("just added").id;
    (number("ada"), number("bob"))
}

async fn put(gate: &Gate, key: String, value: Vec<u8>) {
    let part = Part::new(key, Change::put(value));
    gate.write(part, ringfort_types::Copies::Majority, MS).await.expect("written");
}

/// Rows whose keys begin with these, and one that is larger than a page.
async fn fill(gate: &Gate) {
    for number in 0..ROWS {
        for prefix in ["a/", "b/", "c/1", "c/2", "d/"] {
            put(gate, format!("{prefix}{number:03}"), vec![b'v'; VALUE_BYTES]).await;
        }
    }
    put(gate, "c/1large".to_owned(), vec![b'v'; 2 * SCAN_PAGE_BYTES]).await;
}

async fn rest(rows: &mut Rows) -> Result<Vec<(String, Bytes)>, Failure> {
    let mut all = Vec::new();
    while let Some(batch) = rows.next().await? {
        let text = |key: Bytes| String::from_utf8(key.to_vec()).expect("text");
        all.extend(batch.rows.into_iter().map(|(key, row)| (text(key), row.value)));
    }
    Ok(all)
}

async fn keys(gate: &Gate, listing: Listing) -> Result<Vec<String>, Failure> {
    let rows = rest(&mut gate.rows(listing)?).await?;
    Ok(rows.into_iter().map(|(key, _)| key).collect())
}

fn code<T: std::fmt::Debug>(told: Result<T, Failure>) -> (Code, String) {
    let failure = told.expect_err("it is refused");
    assert_eq!(failure.outcome, Outcome::Rejected);
    (failure.code, failure.message)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_list_shows_what_may_be_read_as_of_one_moment() {
    let (gate, _running, _directory) = node().await;
    fill(&gate).await;
    let rights = [
        over(Access::Read, "c/2"),
        over(Access::Admin, "a/"),
        over(Access::Read, "c/1"),
        over(Access::Read, "c/11"),
        over(Access::Read, "nothing"),
        over(Access::Write, "d/"),
    ];
    let (_, bob) = enforce(&gate, &rights).await;
    let bobs = gate.by(bob);
    let listing = |prefix: &'static str| Listing { prefix: prefix.into(), ..Listing::default() };

    let everything = keys(&gate, listing("")).await.expect("the node may");
    let readable = |prefix: &str| -> Vec<String> {
        let may = |key: &&String| ["a/", "c/1", "c/2"].iter().any(|over| key.starts_with(over));
        everything.iter().filter(|key| key.starts_with(prefix)).filter(may).cloned().collect()
    };
    assert_eq!(readable("").len(), 3 * ROWS + 1);
    for prefix in ["", "a", "a/", "a/12", "c", "c/", "c/1", "c/2"] {
        assert_eq!(keys(&bobs, listing(prefix)).await, Ok(readable(prefix)), "{prefix:?}");
    }
    assert_eq!(keys(&bobs, listing("nothing")).await, Ok(Vec::new()));
    for prefix in ["b", "b/", "d/"] {
        let (code, why) = code(keys(&bobs, listing(prefix)).await);
        assert_eq!(code, Code::PermissionDenied);
        assert!(why.contains(&format!("begin with \"{prefix}\"")) && why.contains("right read"), "{why}");
    }
    assert_eq!(code(keys(&gate.by(Principal::NOBODY), listing("a/")).await).0, Code::Unauthenticated);

    // From somewhere, and no further than so many rows: over the ends of prefixes, too.
    for from in ["a/399", "a/3991", "b/", "c/1", "c/1398", "c/1z", "c/2", "c/3", "z"] {
        let all = readable("").into_iter().filter(|key| key.as_str() >= from);
        for limit in [0, 1, 5, 405] {
            let some = if limit == 0 { usize::MAX } else { limit };
            let wanted: Vec<String> = all.clone().take(some).collect();
            let listing = Listing { from: from.into(), limit: limit as u64, keys_only: true, ..listing("") };
            assert_eq!(keys(&bobs, listing).await, Ok(wanted), "{limit} from {from:?}");
        }
    }

    // What is written meanwhile does not show, in the prefixes that come later either.
    let mut rows = bobs.rows(listing("")).expect("some may be read");
    let first = rows.next().await.expect("there are some").expect("rows");
    assert!(first.rows.len() < ROWS && first.indexes.len() == 4);
    for number in 0..ROWS {
        put(&gate, format!("c/2{number:03}"), b"new".to_vec()).await;
    }
    put(&gate, "c/3".to_owned(), b"new".to_vec()).await;
    let later = rest(&mut rows).await.expect("it goes on");
    assert_eq!(first.rows.len() + later.len(), 3 * ROWS + 1);
    assert!(later.iter().all(|(_, value)| value.len() >= VALUE_BYTES), "all as it was");
    // And at those indexes another list sees the same.
    let indexes = first.indexes.iter().map(|Index(index)| *index).collect();
    let again = rest(&mut bobs.rows(Listing { indexes, ..listing("c/2") }).expect("it may")).await;
    assert!(again.expect("it is kept").iter().all(|(_, value)| value.len() == VALUE_BYTES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_page_is_judged_so_that_a_list_ends_with_the_right() {
    let (gate, _running, _directory) = node().await;
    fill(&gate).await;
    let (_, bob) = enforce(&gate, &[over(Access::Read, "")]).await;
    let mut rows = gate.by(bob).rows(Listing::default()).expect("it may");
    rows.next().await.expect("there are some").expect("rows");
    change(&gate, UserChange::Revoke("bob".to_owned(), over(Access::Read, "")))
        .await
        .expect("another is left");
    assert_eq!(code(rest(&mut rows).await).0, Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn users_do_what_they_may_at_every_door() {
    let (gate, _running, _directory) = node().await;
    let rights = [over(Access::Write, "w/"), over(Access::Read, "r/")];
    let (ada, bob) = enforce(&gate, &rights).await;
    for door in [Door::V1, Door::Text] {
        let bobs = Gate { door, ..gate.by(bob) };
        let write = async |key: &'static str, condition| {
            let part = Part { condition, ..Part::new(key, Change::put("v")) };
            bobs.write(part, ringfort_types::Copies::Majority, MS).await
        };
        for _ in 0..2 {
            assert!(write("w/1", None).await.expect("it may").is_some());
            assert_eq!(code(write("r/1", None).await).0, Code::PermissionDenied);
        }
        // The answer would tell whether the key is there.
        assert_eq!(code(write("w/1", Some(Condition::Absent)).await).0, Code::PermissionDenied);
        assert!(bobs.get("r/1", MS).await.is_ok());
        let (code_of_get, why) = code(bobs.get("w/1", MS).await.map(|(row, _)| row));
        assert_eq!(code_of_get, Code::PermissionDenied);
        assert!(why.contains("ringfort user grant bob read w/1"), "{why}");
        assert!(bobs.cluster(MS).await.is_ok());
        let nobody = Gate { door, ..gate.by(Principal::NOBODY) };
        assert_eq!(code(nobody.get("r/1", MS).await.map(|(row, _)| row)).0, Code::Unauthenticated);
        assert_eq!(code(nobody.cluster(MS).await).0, Code::Unauthenticated);
        let keys = vec![Bytes::from_static(b"r/1"), Bytes::from_static(b"w/1")];
        let many = Request::GetMany { keys, consistency: Consistency::Stale };
        assert!(matches!(bobs.ask(many.into()).await.reply, Reply::Failed(_)));
    }
    assert_eq!(code(gate.by(bob).set_log_level("debug").await).0, Code::PermissionDenied);
    assert_eq!(
        code(gate.by(ada).set_log_level("debug").await).0,
        Code::FailedPrecondition,
        "it has none to set"
    );
    let (denied, _) = code(crate::invite::invite(&gate.by(bob), None, "127.0.0.1:1", 100).await);
    assert_eq!(denied, Code::PermissionDenied);

    let users = |reply| match reply {
        Reply::Users(state) => state.users.into_iter().map(|user| user.name).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(users(gate.by(ada).ask(Request::Users.into()).await.reply), ["ada", "bob"]);
    assert_eq!(users(gate.by(bob).ask(Request::Users.into()).await.reply), ["bob"]);
    let password = UserChange::Password("bob".to_owned(), None);
    change(&gate.by(bob), password).await.expect("one's own");
    let why = code(change(&gate.by(ada), UserChange::Remove("ada".to_owned())).await);
    assert!(why.0 == Code::FailedPrecondition && why.1.contains("no other user may change"), "{why:?}");
}
