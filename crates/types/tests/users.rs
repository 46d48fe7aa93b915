//! Users: their bytes, what becomes of changes, and who may do what.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use ringfort_types::limits::{KEY_BYTES_MAX, RIGHTS_OF_A_USER_MAX, USERS_BYTES_MAX, USERS_MAX};
use ringfort_types::wire::Reader;
use ringfort_types::{
    Access, Change, Code, Command, Condition, Consistency, Entry, HybridClock, Index, LayoutChange,
    LevelLimit, NodeId, Outcome, Part, Principal, Request, Right, Scan, ShardId, UserChange, Users, Verdict,
};

const HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRvZjE2Ynl0$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

fn over(access: Access, prefix: &str) -> Right {
    Right::Over(access, Bytes::copy_from_slice(prefix.as_bytes()))
}

fn add(name: &str) -> UserChange {
    UserChange::Add { name: name.to_owned(), password: None, token: None }
}

fn grant(name: &str, right: Right) -> UserChange {
    UserChange::Grant(name.to_owned(), right)
}

fn revoke(name: &str, right: Right) -> UserChange {
    UserChange::Revoke(name.to_owned(), right)
}

fn users(changes: &[UserChange]) -> Users {
    changes
        .iter()
        .fold(Users::default(), |users, change| users.after(change).expect("it is not void").unwrap_or(users))
}

fn encoded(users: &Users) -> Bytes {
    let mut out = BytesMut::new();
    users.encode(&mut out);
    out.freeze()
}

fn decoded(bytes: impl Into<Bytes>) -> Option<Users> {
    let mut reader = Reader::new(bytes.into());
    let users = Users::decode(&mut reader).ok()?;
    reader.finish().ok().map(|()| users)
}

fn right() -> impl Strategy<Value = Right> {
    let access = proptest::sample::select(Access::ALL.to_vec());
    prop_oneof![
        4 => (access, "[ab/]{0,3}").prop_map(|(access, prefix)| over(access, &prefix)),
        1 => Just(Right::Cluster),
    ]
}

/// Of five users, so that they often meet.
fn change() -> impl Strategy<Value = UserChange> {
    let name = || "[a-e]";
    let password = || proptest::option::of(Just(HASH.to_owned()));
    let token = || proptest::option::of(any::<[u8; 32]>());
    prop_oneof![
        3 => (name(), password(), token())
            .prop_map(|(name, password, token)| UserChange::Add { name, password, token }),
        1 => name().prop_map(UserChange::Remove),
        1 => (name(), password()).prop_map(|(name, password)| UserChange::Password(name, password)),
        1 => (name(), token()).prop_map(|(name, token)| UserChange::Token(name, token)),
        3 => (name(), right()).prop_map(|(name, right)| UserChange::Grant(name, right)),
        2 => (name(), right()).prop_map(|(name, right)| UserChange::Revoke(name, right)),
        1 => any::<bool>().prop_map(UserChange::Enforce),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_change_comes_back_as_it_was_and_every_cut_is_noticed(change in change()) {
        let command = Command::Layout(LayoutChange::Users(change.clone()));
        let entry = Entry { clock: HybridClock(1), commands: vec![command.into()] };
        let bytes = entry.encode();
        prop_assert_eq!(Entry::decode(bytes.clone()), Ok(entry));
        for length in 0..bytes.len() {
            prop_assert!(Entry::decode(bytes.slice(..length)).is_err());
        }
        prop_assert_eq!(Request::ChangeLayout(LayoutChange::Users(change)).validate(), Ok(()));
    }

    #[test]
    fn whatever_is_changed_the_users_are_written_down_and_hold_together(changes in proptest::collection::vec(change(), 1..60)) {
        let mut now = Users::default();
        let mut numbers = std::collections::BTreeMap::new();
        for change in changes {
            let Ok(Some(next)) = now.after(&change) else { continue };
            prop_assert_eq!(next.after(&change), Ok(None), "twice is as good as once: {:?}", change);
            let clusters = next.iter().filter(|user| user.may_change_cluster()).count();
            prop_assert!(!next.enforced || clusters > 0);
            prop_assert!(next.next() >= now.next());
            for user in next.iter() {
                prop_assert_eq!(next.named(&user.name), Some(user));
                prop_assert_eq!(next.get(user.id), Some(user));
                prop_assert!(user.id < next.next());
                // Of one name there may be others, one after the other; of a number there is one.
                let name = numbers.entry(user.id).or_insert_with(|| user.name.clone());
                prop_assert_eq!(&*name, &user.name);
            }
            let bytes = encoded(&next);
            prop_assert_eq!(decoded(bytes.clone()), Some(next.clone()));
            for length in 0..bytes.len() {
                prop_assert_eq!(decoded(bytes.slice(..length)), None);
            }
            now = next;
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_but_never_panic(changes in proptest::collection::vec(change(), 1..20), place in any::<prop::sample::Index>(), bits in 1u8..) {
        let now = changes.iter().fold(Users::default(), |now, change| now.after(change).ok().flatten().unwrap_or(now));
        let mut bytes = encoded(&now).to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= bits;
        if let Some(read) = decoded(bytes) {
            prop_assert_eq!(decoded(encoded(&read)), Some(read));
        }
    }

    /// Against what the table of rights says, in the plainest words.
    #[test]
    fn a_key_may_be_read_and_written_by_whoever_has_a_right_over_a_prefix_of_it(
        rights in proptest::collection::btree_set(right(), 0..12), key in "[ab/]{1,4}", conditional in any::<bool>(),
    ) {
        let mut changes = vec![add("root"), grant("root", Right::Cluster), UserChange::Enforce(true), add("ada")];
        changes.extend(rights.iter().map(|right| grant("ada", right.clone())));
        let now = users(&changes);
        let ada = now.named("ada").expect("she was added").id;
        let has = |wanted: &[Access]| rights.iter().any(|right| match right {
            Right::Over(access, prefix) => wanted.contains(access) && key.as_bytes().starts_with(prefix),
            Right::Cluster => false,
        });
        let (reads, writes) = (has(&[Access::Read, Access::Admin]), has(&[Access::Write, Access::Admin]));
        let may = |request: &Request| now.judge(ada, request) == Verdict::May;
        let get = Request::Get { key: key.clone().into(), consistency: Consistency::Stale };
        prop_assert_eq!(may(&get), reads);
        let condition = conditional.then_some(Condition::Absent);
        let part = Part { condition, ..Part::new(key.clone(), Change::DELETE) };
        prop_assert_eq!(may(&Request::Write { parts: vec![part] }), writes && (reads || !conditional));

        // A list shows each key that may be read once, and no other one.
        let prefix = Bytes::copy_from_slice(&key.as_bytes()[..key.len() / 2]);
        let shown = now.readable(ada, &prefix).unwrap_or_default();
        let times = shown.iter().filter(|prefix| key.as_bytes().starts_with(prefix)).count();
        prop_assert_eq!(times, usize::from(reads));
        prop_assert!(shown.is_sorted_by(|a, b| a < b) && shown.iter().all(|one| one.starts_with(&prefix)));
        for prefix in shown {
            prop_assert!(may(&list(&prefix)), "each of its pages is allowed");
        }
    }
}

fn list(prefix: &[u8]) -> Request {
    Request::Scan(Scan {
        shard: ShardId(1),
        at: None,
        from: Bytes::new(),
        prefix: Bytes::copy_from_slice(prefix),
        rows_max: 10,
        bytes_max: 1_000,
        keys_only: true,
    })
}

/// Rights are enforced: ada may change the cluster, bob reads and writes what begins with `b/`, and eve has admin over `e/`.
fn enforced() -> Users {
    users(&[
        add("ada"),
        add("bob"),
        add("eve"),
        add("zoe"),
        grant("ada", Right::Cluster),
        grant("bob", over(Access::Read, "b/")),
        grant("bob", over(Access::Write, "b/")),
        grant("eve", over(Access::Admin, "e/")),
        UserChange::Remove("zoe".to_owned()),
        UserChange::Enforce(true),
    ])
}

const ADA: Principal = Principal(1);
const BOB: Principal = Principal(2);
const EVE: Principal = Principal(3);
const ZOE: Principal = Principal(4);

fn layout(change: UserChange) -> Request {
    Request::ChangeLayout(LayoutChange::Users(change))
}

/// Whoever may ask for this: those of ada, bob and eve.
#[test]
fn who_may_do_what() {
    let now = enforced();
    let get = |key: &'static str| Request::Get { key: key.into(), consistency: Consistency::Linearizable };
    let many = |keys: &[&'static str]| Request::GetMany {
        keys: keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect(),
        consistency: Consistency::Lease,
    };
    let write = |keys: &[&'static str]| Request::Write {
        parts: keys.iter().map(|key| Part::new(*key, Change::Add(1))).collect(),
    };
    let digest_at = Request::DigestAt { node: NodeId(1), shard: ShardId(1), index: Index(1) };
    let password = |name: &str| UserChange::Password(name.to_owned(), Some(HASH.to_owned()));
    let token = |name: &str| UserChange::Token(name.to_owned(), None);
    for (request, allowed) in [
        (get("b/1"), "b"),
        (get("b"), ""),
        (get("e/1"), "e"),
        (get("a"), ""),
        (many(&["b/1", "b/2"]), "b"),
        (many(&["b/1", "e/2"]), ""),
        (write(&["b/1"]), "b"),
        (write(&["e/1", "e/2"]), "e"),
        (write(&["e/1", "b/1"]), ""),
        (list(b"b/"), "b"),
        (list(b"b/12"), "b"),
        (list(b"b"), ""),
        (list(b""), ""),
        (Request::OpenSession { shard: ShardId(1) }, "abe"),
        (Request::ClusterState, "abe"),
        (Request::Users, "abe"),
        (Request::Digest { shard: ShardId(1) }, "a"),
        (digest_at, "a"),
        (Request::Transfer { shard: ShardId(1), to: NodeId(1) }, "a"),
        (Request::ChangeLayout(LayoutChange::Copies(3)), "a"),
        (Request::ChangeLayout(LayoutChange::Limit(LevelLimit::Auto)), "a"),
        (layout(add("new")), "a"),
        (layout(UserChange::Remove("bob".to_owned())), "a"),
        (layout(UserChange::Enforce(false)), "a"),
        (layout(password("bob")), "ab"),
        (layout(token("eve")), "ae"),
        (layout(grant("bob", Right::Cluster)), "a"),
        (layout(grant("bob", over(Access::Read, "e/1"))), "ae"),
        (layout(revoke("bob", over(Access::Admin, "e/"))), "ae"),
        (layout(grant("eve", over(Access::Admin, "e"))), "a"),
        (layout(grant("bob", over(Access::Read, "b/"))), "a"),
        (layout(revoke("ada", Right::Cluster)), "a"),
    ] {
        for (who, name) in [(ADA, 'a'), (BOB, 'b'), (EVE, 'e')] {
            let verdict = now.judge(who, &request);
            assert_eq!(verdict == Verdict::May, allowed.contains(name), "{name} {request:?}: {verdict:?}");
            if let Verdict::MayNot(failure) = verdict {
                assert_eq!((failure.code, failure.outcome), (Code::PermissionDenied, Outcome::Rejected));
                assert!(failure.message.contains("ringfort user grant"), "{failure}");
            }
        }
        assert_eq!(now.judge(Principal::NODE, &request), Verdict::May);
        for nobody in [Principal::NOBODY, ZOE] {
            let Verdict::MayNot(failure) = now.judge(nobody, &request) else { panic!("{request:?}") };
            assert_eq!((failure.code, failure.outcome), (Code::Unauthenticated, Outcome::Rejected));
            assert!(failure.message.contains("--user"), "{failure}");
        }
        // Whoever let them in knows a later layout.
        for later in [Principal(5), Principal(u32::MAX - 2)] {
            assert_eq!(now.judge(later, &request), Verdict::NotKnownYet);
        }
        let free = now.after(&UserChange::Enforce(false)).expect("not void").expect("it was enforced");
        for anybody in [Principal::NOBODY, ZOE, BOB, Principal(5)] {
            assert_eq!(free.judge(anybody, &request), Verdict::May, "as long as rights are not enforced");
        }
        // Who shows nothing where there is TLS may nothing, enforced or not.
        for users in [&now, &free] {
            let verdict = users.judge(Principal::STRANGER, &request);
            let Verdict::MayNot(failure) = verdict else { panic!("{request:?}: {verdict:?}") };
            assert_eq!((failure.code, failure.outcome), (Code::Unauthenticated, Outcome::Rejected));
        }
    }
    let later = Verdict::NotKnownYet.into_failure().expect("it is one");
    assert_eq!((later.code, later.outcome), (Code::Unavailable, Outcome::Rejected));
    assert_eq!(Verdict::May.into_failure(), None);
    assert_eq!(now.judge_cluster(ADA), Verdict::May);
    assert!(matches!(now.judge_cluster(EVE), Verdict::MayNot(_)));
}

#[test]
fn reading_all_is_enough_for_a_digest() {
    let reader = users(&[
        add("ada"),
        grant("ada", Right::Cluster),
        add("bob"),
        grant("bob", over(Access::Read, "")),
        UserChange::Enforce(true),
    ]);
    assert_eq!(reader.judge(BOB, &Request::Digest { shard: ShardId(1) }), Verdict::May);
    assert_eq!(reader.readable(BOB, &Bytes::from_static(b"x")), Ok(vec![Bytes::from_static(b"x")]));
}

fn message(verdict: Verdict) -> String {
    verdict.into_failure().expect("a refusal").message
}

#[test]
fn a_refusal_names_the_user_the_right_and_what_to_do() {
    let now = enforced();
    let put = Request::put("a/\n\u{ff}", "v");
    assert_eq!(
        message(now.judge(BOB, &put)),
        "user \"bob\" may not write key \"a/\\n\\xc3\\xbf\": it needs the right write over it, or over keys that begin as it does \
         (ringfort user grant bob write a/\\n\\xc3\\xbf)"
    );
    let why = message(now.judge(BOB, &list(b"a/")));
    assert!(why.contains("may not read keys that begin with \"a/\""), "{why}");
    assert!(why.ends_with("(ringfort user grant bob read a/)"), "{why}");
    let long = Request::put("k".repeat(KEY_BYTES_MAX), "v");
    assert!(message(now.judge(BOB, &long)).len() < 400, "a long key is not told whole");
    let why = message(now.judge(BOB, &layout(add("new"))));
    assert!(why.contains("may not change the cluster's users") && why.contains("grant bob cluster"), "{why}");
}

#[test]
fn a_list_goes_over_what_may_be_read() {
    let prefix = |text: &'static str| Bytes::from_static(text.as_bytes());
    let mut now = enforced();
    for right in [
        over(Access::Read, "c/2"),
        over(Access::Admin, "c/1"),
        over(Access::Read, "c/11"),
        over(Access::Read, "c/1"),
        over(Access::Write, "d"),
    ] {
        now = now.after(&grant("bob", right)).expect("not void").expect("new");
    }
    let readable = |at: &'static str| now.readable(BOB, &prefix(at));
    assert_eq!(readable(""), Ok(vec![prefix("b/"), prefix("c/1"), prefix("c/2")]));
    assert_eq!(readable("c/"), Ok(vec![prefix("c/1"), prefix("c/2")]));
    assert_eq!(readable("c/1"), Ok(vec![prefix("c/1")]));
    assert_eq!(readable("c/111"), Ok(vec![prefix("c/111")]));
    let denied = message(readable("d").unwrap_err());
    assert!(denied.contains("\"d\"") && denied.contains("right read"), "{denied}");
    assert_eq!(now.readable(Principal::NODE, &prefix("d")), Ok(vec![prefix("d")]));
    assert_eq!(now.readable(Principal(5), &prefix("d")), Err(Verdict::NotKnownYet));
}

#[test]
fn users_are_shown_to_those_who_can_grant_something() {
    let now = enforced();
    let names = |who| now.shown_to(who).users.into_iter().map(|user| user.name).collect::<Vec<_>>();
    for sees_all in [ADA, EVE, Principal::NODE] {
        assert_eq!(names(sees_all), ["ada", "bob", "eve"]);
    }
    assert_eq!(names(BOB), ["bob"]);
    assert!(names(Principal::NOBODY).is_empty());
    assert!(now.shown_to(BOB).enforced);
}

#[test]
fn changes_that_can_not_be_made_are_void_and_say_why() {
    let now = enforced();
    let void = |change: UserChange| now.after(&change).expect_err("it is void");
    let twin = UserChange::Add { name: "bob".to_owned(), password: None, token: Some([1; 32]) };
    assert!(void(twin).contains("there is a user \"bob\" already"));
    assert_eq!(now.after(&add("bob")), Ok(None), "that is the user who is there");
    for last in [UserChange::Remove("ada".to_owned()), revoke("ada", Right::Cluster)] {
        let why = void(last.clone());
        assert!(
            why.contains("no other user may change the cluster") && why.contains("grant NAME cluster"),
            "{why}"
        );
        let two = now.after(&grant("eve", Right::Cluster)).expect("not void").expect("new");
        assert!(two.after(&last).expect("there is another").is_some());
    }
    for unknown in [
        grant("kim", Right::Cluster),
        revoke("kim", Right::Cluster),
        UserChange::Password("kim".to_owned(), None),
        UserChange::Token("kim".to_owned(), None),
    ] {
        assert!(void(unknown).contains("there is no user \"kim\""));
    }
    assert_eq!(now.after(&UserChange::Remove("kim".to_owned())), Ok(None));
    let free = users(&[add("ada"), grant("ada", over(Access::Admin, ""))]);
    let why = free.after(&UserChange::Enforce(true)).expect_err("nobody could end it");
    assert!(why.contains("no user may change the cluster"), "{why}");
}

#[test]
fn a_number_is_given_once() {
    let now = enforced();
    assert_eq!((now.next(), now.get(ZOE)), (Principal(5), None));
    let again = now.after(&add("zoe")).expect("not void").expect("new");
    assert_eq!(again.named("zoe").map(|zoe| zoe.id), Some(Principal(5)));
    assert!(matches!(again.judge(ZOE, &Request::ClusterState), Verdict::MayNot(_)), "it is another one");
}

#[test]
fn there_are_bounds_and_they_are_told() {
    let mut now = users(&[add("ada")]);
    for number in 0..RIGHTS_OF_A_USER_MAX {
        let next = now.after(&grant("ada", over(Access::Read, &number.to_string())));
        now = next.expect("not void").expect("new");
    }
    let why = now.after(&grant("ada", Right::Cluster)).expect_err("one too many");
    assert!(why.contains("64 rights"), "{why}");
    assert_eq!(now.after(&grant("ada", over(Access::Read, "7"))), Ok(None));

    // All together: prefixes of the longest keys, for five users.
    let mut now = Users::default();
    let mut refusal = None;
    'full: for user in 0..5 {
        let name = format!("user{user}");
        now = now.after(&add(&name)).expect("not void").expect("new");
        for number in 0..RIGHTS_OF_A_USER_MAX {
            let right = over(Access::Read, &format!("{number:0>KEY_BYTES_MAX$}"));
            match now.after(&grant(&name, right)) {
                Ok(next) => now = next.expect("new"),
                Err(why) => {
                    refusal = Some(why);
                    break 'full;
                }
            }
        }
    }
    assert!(refusal.is_some_and(|why| why.contains(&USERS_BYTES_MAX.to_string())));
    assert!(encoded(&now).len() <= USERS_BYTES_MAX);
    assert!(now.after(&UserChange::Remove("user1".to_owned())).expect("it helps").is_some());
}

#[test]
fn as_many_users_as_there_may_be_are_read_and_no_more() {
    // One after the other they would be copied ten thousand times.
    let bytes = |count: usize| {
        let mut out = BytesMut::new();
        out.extend_from_slice(&[0]);
        ringfort_types::wire::put_varint(&mut out, count as u64 + 1);
        ringfort_types::wire::put_varint(&mut out, count as u64);
        for number in 1..=count {
            ringfort_types::wire::put_varint(&mut out, number as u64);
            ringfort_types::wire::put_bytes(&mut out, format!("user{number:06}").as_bytes());
            out.extend_from_slice(&[0, 0]);
        }
        out.freeze()
    };
    let full = decoded(bytes(USERS_MAX)).expect("they fit");
    assert_eq!((full.iter().len(), encoded(&full)), (USERS_MAX, bytes(USERS_MAX)));
    assert!(full.after(&add("one")).expect_err("one too many").contains("10000 users"));
    assert_eq!(decoded(bytes(USERS_MAX + 1)), None);
}

#[test]
fn users_are_laid_out_as_drawn() {
    let now = users(&[
        add("b"),
        UserChange::Add { name: "a".to_owned(), password: Some("$".to_owned()), token: Some([9; 32]) },
        grant("a", Right::Cluster),
        grant("a", over(Access::Write, "k")),
        UserChange::Enforce(true),
    ]);
    let drawn =
        [&[1, 3, 2][..], &[2, 1, b'a', 3, 1, b'$'], &[9; 32], &[2, 1, 1, b'k', 3], &[1, 1, b'b', 0, 0]];
    assert_eq!(encoded(&now), drawn.concat());
    let bad: &[&[u8]] = &[
        &[2, 1, 0],
        &[0, 0, 0],
        &[0, 1, 1, 1, 1, b'a', 0, 0],
        &[0, 2, 1, 0, 1, b'a', 0, 0],
        &[0, 2, 1, 1, 1, b' ', 0, 0],
        &[0, 2, 1, 1, 1, b'a', 4, 0],
        &[0, 2, 1, 1, 1, b'a', 0, 1, 4],
        &[0, 2, 1, 1, 1, b'a', 0, 2, 3, 3],
        &[0, 3, 2, 1, 1, b'b', 0, 0, 2, 1, b'a', 0, 0],
        &[0, 3, 2, 1, 1, b'a', 0, 0, 1, 1, b'b', 0, 0],
    ];
    for bad in bad {
        assert_eq!(decoded(bad.to_vec()), None, "{bad:?}");
    }
}

#[test]
fn what_no_cluster_would_take_is_refused_with_a_reason() {
    for (change, says) in [
        (add(""), "no name for a user"),
        (add("a b"), "no name for a user"),
        (UserChange::Remove("é".to_owned()), "no name for a user"),
        (grant("ada", over(Access::Read, &"k".repeat(KEY_BYTES_MAX + 1))), "prefix of 16385 bytes"),
        (UserChange::Password("ada".to_owned(), Some("secret".to_owned())), "PHC string"),
    ] {
        let failure = layout(change).validate().expect_err("nobody takes it");
        assert_eq!(failure.code, Code::InvalidArgument);
        assert!(failure.message.contains(says), "{failure}");
        assert!(!failure.message.contains("secret"), "a password is not repeated");
    }
}

#[test]
fn hashes_do_not_show() {
    let change =
        UserChange::Add { name: "ada".to_owned(), password: Some(HASH.to_owned()), token: Some([251; 32]) };
    let shown = format!("{change:?} {:?}", users(std::slice::from_ref(&change)));
    assert!(shown.contains("ada") && !shown.contains("argon2id") && !shown.contains("251"), "{shown}");
}
