//! Who may do what.
//!
//! | request | needs |
//! |---|---|
//! | a read of keys | read over each of them |
//! | a write | write over each key, and read over those that it has a condition for, since the answer tells whether it is met |
//! | a page of a list | read over its prefix |
//! | a session, the cluster's state, the users | to be a user; the others are shown to whoever can grant something |
//! | a digest | read over all keys, or cluster |
//! | a grant or revocation of a right over a prefix | admin over that prefix, or cluster |
//! | another password or token for oneself | nothing more |
//! | whatever else changes the cluster | cluster |
//!
//! A right over a prefix is one over all longer ones. Admin is read and write as well. A user is looked up by number, and nothing is
//! allocated for what is allowed.

use bytes::Bytes;

use super::{Access, Right, User, UserChange, Users, UsersState};
use crate::{Code, Failure, LayoutChange, Principal, Request, shown};

/// Whether somebody may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They may.
    May,
    /// They may not, for this reason.
    MayNot(Failure),
    /// They have a number that is not known yet: whoever let them in knows a later layout.
    NotKnownYet,
}

impl Verdict {
    /// The failure that whoever asked is told of, if they may not, or not yet.
    pub fn into_failure(self) -> Option<Failure> {
        match self {
            Verdict::May => None,
            Verdict::MayNot(failure) => Some(failure),
            Verdict::NotKnownYet => {
                let why = "this node has not heard of the user yet: try again in a moment";
                Some(Failure::rejected(Code::Unavailable, why))
            }
        }
    }
}

/// Who asks.
enum Asker<'a> {
    /// Somebody for whom everything is allowed: the node itself, or anybody while rights are not enforced.
    Unbound,
    User(&'a User),
}

impl Users {
    fn asker(&self, who: Principal) -> Result<Asker<'_>, Verdict> {
        if who == Principal::STRANGER {
            return Err(unauthenticated(
                "nobody has said who asks: show a certificate of this cluster's CA (--cert, --key), or name a user (--user NAME, with a password or a \
                 token)",
            ));
        }
        if !self.enforced || who == Principal::NODE {
            return Ok(Asker::Unbound);
        }
        if let Some(user) = self.get(who) {
            return Ok(Asker::User(user));
        }
        Err(if who == Principal::NOBODY {
            unauthenticated(
                "this cluster enforces rights, and nobody has said who asks: name a user (--user NAME, with a password or a token), \
                 or show a certificate that names one",
            )
        } else if who < self.next {
            unauthenticated(
                "the user who asks has been removed from this cluster: name another one (--user NAME)",
            )
        } else {
            Verdict::NotKnownYet
        })
    }

    fn judged(&self, who: Principal, by: impl FnOnce(&User) -> Result<(), Failure>) -> Verdict {
        match self.asker(who) {
            Ok(Asker::Unbound) => Verdict::May,
            Ok(Asker::User(user)) => by(user).map_or_else(Verdict::MayNot, |()| Verdict::May),
            Err(verdict) => verdict,
        }
    }

    /// Whether they may ask for this.
    pub fn judge(&self, who: Principal, request: &Request) -> Verdict {
        self.judged(who, |user| match request {
            Request::Get { key, .. } => over(user, Access::Read, key),
            Request::GetMany { keys, .. } => keys.iter().try_for_each(|key| over(user, Access::Read, key)),
            Request::Write { parts } => parts.iter().try_for_each(|part| {
                over(user, Access::Write, &part.key)?;
                if part.condition.is_some() { over(user, Access::Read, &part.key) } else { Ok(()) }
            }),
            Request::Scan(scan) => list(user, &scan.prefix),
            Request::OpenSession { .. } | Request::ClusterState | Request::Users => Ok(()),
            Request::Digest { .. } | Request::DigestAt { .. } => digest(user),
            Request::ChangeLayout(LayoutChange::Users(change)) => users(user, change),
            Request::ChangeLayout(_) | Request::Transfer { .. } => cluster(user, "change the cluster"),
        })
    }

    /// Whether they may change the cluster, or a node of it.
    pub fn judge_cluster(&self, who: Principal) -> Verdict {
        self.judged(who, |user| cluster(user, "change the cluster"))
    }

    /// The prefixes of keys that begin with `prefix` and that they may read: none of them begins with another one, and they ascend. It is
    /// `prefix` alone for whoever may read all of those keys. A verdict if there is none.
    pub fn readable(&self, who: Principal, prefix: &Bytes) -> Result<Vec<Bytes>, Verdict> {
        let user = match self.asker(who)? {
            Asker::User(user) if !user.may(Access::Read, prefix) => user,
            _ => return Ok(vec![prefix.clone()]),
        };
        let over = user.rights.iter().filter_map(|right| match right {
            Right::Over(Access::Read | Access::Admin, over) if over.starts_with(prefix) => Some(over),
            _ => None,
        });
        let mut readable: Vec<Bytes> = over.cloned().collect();
        readable.sort_unstable();
        // Whatever begins with a prefix comes right behind it.
        readable.dedup_by(|longer, kept| longer.starts_with(kept));
        if readable.is_empty() {
            return Err(list(user, prefix).map_or_else(Verdict::MayNot, |()| Verdict::May));
        }
        Ok(readable)
    }

    /// The users that they may see: all, if they can grant anything, or the one that they are. None are seen by nobody.
    pub fn shown_to(&self, who: Principal) -> UsersState {
        let grants = |right: &Right| matches!(right, Right::Over(Access::Admin, _) | Right::Cluster);
        let users = match self.asker(who) {
            Ok(Asker::User(user)) if !user.rights.iter().any(grants) => vec![user.into()],
            Ok(_) => self.iter().map(Into::into).collect(),
            Err(_) => Vec::new(),
        };
        UsersState { enforced: self.enforced, users }
    }
}

fn unauthenticated(why: &str) -> Verdict {
    Verdict::MayNot(Failure::rejected(Code::Unauthenticated, why))
}

fn denied(why: String) -> Failure {
    Failure::rejected(Code::PermissionDenied, why)
}

fn over(user: &User, access: Access, key: &[u8]) -> Result<(), Failure> {
    if user.may(access, key) {
        return Ok(());
    }
    let (name, key) = (&user.name, shown(key));
    Err(denied(format!(
        "user \"{name}\" may not {access} key \"{key}\": it needs the right {access} over it, or over keys that begin as it does \
         (ringfort user grant {name} {access} {key})"
    )))
}

fn list(user: &User, prefix: &[u8]) -> Result<(), Failure> {
    if user.may(Access::Read, prefix) {
        return Ok(());
    }
    let name = &user.name;
    Err(denied(if prefix.is_empty() {
        format!(
            "user \"{name}\" may not read all keys: it needs the right read over them (ringfort user grant {name} read \"\")"
        )
    } else {
        let prefix = shown(prefix);
        format!(
            "user \"{name}\" may not read keys that begin with \"{prefix}\": it needs the right read over them (ringfort user \
             grant {name} read {prefix})"
        )
    }))
}

fn digest(user: &User) -> Result<(), Failure> {
    if user.may(Access::Read, b"") || user.may_change_cluster() {
        return Ok(());
    }
    let name = &user.name;
    Err(denied(format!(
        "user \"{name}\" may not compare replicas: it needs the right read over all keys, or the right cluster (ringfort user grant \
         {name} cluster)"
    )))
}

fn users(user: &User, change: &UserChange) -> Result<(), Failure> {
    let name = &user.name;
    match change {
        UserChange::Password(of, _) | UserChange::Token(of, _) if of == name => Ok(()),
        UserChange::Grant(_, Right::Over(_, prefix)) | UserChange::Revoke(_, Right::Over(_, prefix)) => {
            if user.may(Access::Admin, prefix) || user.may_change_cluster() {
                return Ok(());
            }
            let prefix = shown(prefix);
            Err(denied(format!(
                "user \"{name}\" may not grant or revoke rights over keys that begin with \"{prefix}\": it needs the right admin over \
                 them, or the right cluster (ringfort user grant {name} admin \"{prefix}\")"
            )))
        }
        _ => cluster(user, "change the cluster's users"),
    }
}

fn cluster(user: &User, what: &str) -> Result<(), Failure> {
    if user.may_change_cluster() {
        return Ok(());
    }
    let name = &user.name;
    Err(denied(format!(
        "user \"{name}\" may not {what}: it needs the right cluster (ringfort user grant {name} cluster)"
    )))
}
