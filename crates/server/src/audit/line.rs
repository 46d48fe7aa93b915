//! A line: what is said of one thing that was asked for.

use std::net::IpAddr;
use std::time::SystemTime;

use bytes::Bytes;
use ringfort_ring::Layout;
use ringfort_types::{Code, Failure, LayoutChange, NodeId, Outcome, Request, Right, UserChange, shown};
use serde::Serialize;

use super::{Act, code_of};

/// Most bytes of a filter, a name or an address that a client gave.
const TEXT_BYTES_MAX: usize = 256;
/// Most members that a change names.
const NAMES_MAX: usize = 8;

/// One line. What does not apply is left out, but for the user and the address.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    pub(super) time: String,
    pub(super) node: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) from: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) door: Option<&'static str>,
    pub(super) operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keys: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefix: Option<String>,
    pub(super) allowed: bool,
    pub(super) outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) change: Option<&'a str>,
}

impl Line<'_> {
    /// The same of something that has failed.
    pub(super) fn failed(self, failure: &Failure) -> Self {
        Line {
            allowed: !is_refusal(failure),
            outcome: match failure.outcome {
                Outcome::Rejected => "rejected",
                Outcome::Unknown => "unknown",
            },
            code: Some(code_of(failure)),
            ..self
        }
    }

    /// With its end.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("plain values can be written to memory");
        bytes.push(b'\n');
        bytes
    }
}

/// Now, in UTC, to the millisecond.
pub(super) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// Whether it is for lack of rights, or for wrong credentials.
pub(super) fn is_refusal(failure: &Failure) -> bool {
    matches!(failure.code, Code::Unauthenticated | Code::PermissionDenied)
}

/// The keys that something is about.
#[derive(Debug, Default)]
pub(super) struct Subject {
    pub(super) keys: Option<usize>,
    /// What all of them begin with.
    prefix: Option<Bytes>,
}

impl Subject {
    pub(super) fn of(act: Act<'_>) -> Subject {
        match act {
            Act::List(prefix) => Subject { keys: None, prefix: Some(prefix.clone()) },
            Act::Request(Request::Scan(scan)) => Subject { keys: None, prefix: Some(scan.prefix.clone()) },
            Act::Request(request) => Subject::of_keys(request.keys()),
            Act::SetLogLevel(_) | Act::Invite(..) => Subject::default(),
        }
    }

    fn of_keys<'a>(mut keys: impl Iterator<Item = &'a Bytes>) -> Subject {
        let Some(mut prefix) = keys.next().cloned() else { return Subject::default() };
        let mut count = 1;
        for key in keys {
            count += 1;
            let common = key.iter().zip(&prefix).take_while(|(a, b)| a == b).count();
            prefix.truncate(common);
        }
        Subject { keys: Some(count), prefix: Some(prefix) }
    }

    /// As much of the prefix as a line has.
    pub(super) fn shown(&self) -> Option<String> {
        Some(shown(self.prefix.as_ref()?).to_string())
    }
}

/// What an administration act changes, without secrets.
pub(super) fn change(act: Act<'_>, layout: Option<&Layout>) -> String {
    match act {
        Act::Request(Request::ChangeLayout(change)) => layout_change(change, layout),
        Act::Request(Request::Transfer { shard, to }) => {
            format!("shard {shard} is led by {}", node(*to, layout))
        }
        Act::SetLogLevel(filter) => format!("log level {}", cut(filter)),
        Act::Invite(name, address) => match name {
            Some(name) => format!("invite {} at {}", cut(name), cut(address)),
            None => format!("invite the node at {}", cut(address)),
        },
        Act::Request(_) | Act::List(_) => String::new(),
    }
}

fn layout_change(change: &LayoutChange, layout: Option<&Layout>) -> String {
    match change {
        LayoutChange::Prefer(preference) => format!("leader-preference={preference}"),
        LayoutChange::Renew { shard, replica } => {
            format!("replica of shard {shard} on {} is made anew", node(replica.node, layout))
        }
        LayoutChange::Join(new) => {
            let (name, address) = (cut(&new.name), cut(&new.address));
            let how = if new.replaces { "takes its name's place" } else { "is a member" };
            format!("{name} at {address} {how}")
        }
        LayoutChange::Stand(member, standing) => format!("{} is {standing}", node(*member, layout)),
        LayoutChange::Copies(copies) => format!("replicas={copies}"),
        LayoutChange::Place { epoch, places } => {
            format!("{} shards are placed, at epoch {epoch}", places.len())
        }
        LayoutChange::Reached { epoch } => format!("epoch {epoch} is reached"),
        LayoutChange::Knows(member, level) => format!("{} knows level {level}", node(*member, layout)),
        LayoutChange::Limit(limit) => format!("level limit {limit:?}"),
        LayoutChange::Move(moved) => {
            let some = moved.iter().take(NAMES_MAX);
            let some: Vec<_> = some
                .map(|(member, address)| format!("{} at {}", node(*member, layout), cut(address)))
                .collect();
            let more = moved.len().saturating_sub(NAMES_MAX);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            format!("moved: {}{more}", some.join(", "))
        }
        LayoutChange::Raise(level) => format!("level {level} is in force"),
        LayoutChange::Users(change) => user_change(change),
    }
}

fn user_change(change: &UserChange) -> String {
    let with = |is_there: bool| if is_there { "a new" } else { "no" };
    match change {
        UserChange::Add { name, password, token } => {
            let ways = match (password.is_some(), token.is_some()) {
                (true, true) => "with a password and a token",
                (true, false) => "with a password",
                (false, true) => "with a token",
                (false, false) => "with neither password nor token",
            };
            format!("add user {} {ways}", cut(name))
        }
        UserChange::Remove(name) => format!("remove user {}", cut(name)),
        UserChange::Password(name, password) => {
            format!("user {} has {} password", cut(name), with(password.is_some()))
        }
        UserChange::Token(name, token) => format!("user {} has {} token", cut(name), with(token.is_some())),
        UserChange::Grant(name, right) => format!("grant user {} {}", cut(name), shown_right(right)),
        UserChange::Revoke(name, right) => format!("revoke of user {} {}", cut(name), shown_right(right)),
        UserChange::Enforce(true) => "rights are enforced".to_owned(),
        UserChange::Enforce(false) => "rights are not enforced".to_owned(),
    }
}

fn shown_right(right: &Right) -> String {
    match right {
        Right::Over(access, prefix) => format!("{access} \"{}\"", shown(prefix)),
        Right::Cluster => "cluster".to_owned(),
    }
}

fn node(id: NodeId, layout: Option<&Layout>) -> String {
    let name = layout.and_then(|layout| layout.member(id)).map(|member| member.name.clone());
    name.unwrap_or_else(|| format!("node {id}"))
}

/// What a client gave, as far as a line has it.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use ringfort_types::{Access, Change, Part};

    use super::*;

    #[test]
    fn keys_are_told_by_their_number_and_what_they_begin_with() {
        let of = |keys: &[&str]| {
            let parts = keys.iter().map(|key| Part::new((*key).to_owned(), Change::put("secret"))).collect();
            let subject = Subject::of(Act::Request(&Request::Write { parts }));
            (subject.keys, subject.shown())
        };
        let told = |keys, prefix: &str| (Some(keys), Some(prefix.to_owned()));
        assert_eq!(of(&["app/a"]), told(1, "app/a"));
        assert_eq!(of(&["app/a1", "app/a2", "app/b"]), told(3, "app/"));
        assert_eq!(of(&["a", "b"]), told(2, ""));
        assert_eq!(of(&["\n\"é"]), told(1, "\\n\\\"\\xc3\\xa9"));
        assert_eq!(of(&[&"k".repeat(100)]), told(1, &"k".repeat(64)));
        assert_eq!(Subject::of(Act::Request(&Request::Users)).shown(), None);
    }

    #[test]
    fn changes_are_told_without_secrets() {
        const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA";
        let told = |change| {
            let request = Request::ChangeLayout(LayoutChange::Users(change));
            super::change(Act::Request(&request), None)
        };
        let ada = || "ada".to_owned();
        let add = UserChange::Add { name: ada(), password: Some(HASH.to_owned()), token: Some([171; 32]) };
        assert_eq!(told(add), "add user ada with a password and a token");
        assert_eq!(told(UserChange::Password(ada(), Some(HASH.to_owned()))), "user ada has a new password");
        assert_eq!(told(UserChange::Token(ada(), None)), "user ada has no token");
        let right = Right::Over(Access::Read, Bytes::from_static(b"a\n"));
        assert_eq!(told(UserChange::Grant(ada(), right)), "grant user ada read \"a\\n\"");
        assert_eq!(told(UserChange::Enforce(false)), "rights are not enforced");
        let stand = LayoutChange::Stand(NodeId(3), ringfort_types::Standing::Leaving);
        assert_eq!(layout_change(&stand, None), "node 3 is leaving");
        assert_eq!(
            change(Act::SetLogLevel(&"é".repeat(1000)), None).len(),
            "log level ".len() + TEXT_BYTES_MAX
        );
    }
}
