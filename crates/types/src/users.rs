//! Users of a cluster, and what each may do. They stand in the cluster's layout, so every node knows them.
//!
//! As long as rights are not enforced, everybody may do everything, known or not.

use bytes::Bytes;

use crate::Principal;

/// What may be done to keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Access {
    /// Read them, and see in a list that they are there.
    Read = 0,
    /// Put, delete and add to them.
    Write = 1,
    /// Both, and grant and revoke rights over them.
    Admin = 2,
}

/// One thing that a user may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// This, to keys that begin with these bytes; to all if there are none.
    Over(Access, Bytes),
    /// Change the cluster: its nodes, its settings, its users.
    Cluster,
}

/// Somebody who is known by a password, a token or a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Never given to another one later.
    pub id: Principal,
    /// A name as nodes have them; the common name of the user's certificates.
    pub name: String,
    /// The hash of the password, as a PHC string of argon2id; none without a password.
    pub password: Option<String>,
    /// The SHA-256 of the token; none without one.
    pub token: Option<[u8; 32]>,
    /// What the user may do, ascending.
    pub rights: Vec<Right>,
}

/// All users of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Whether what somebody may not do is refused.
    pub enforced: bool,
    /// By their names, ascending.
    all: Vec<User>,
}

impl Users {
    /// The user of this name.
    pub fn named(&self, name: &str) -> Option<&User> {
        let place = self.all.binary_search_by(|user| user.name.as_str().cmp(name)).ok()?;
        Some(&self.all[place])
    }

    /// The user of this number.
    pub fn get(&self, id: Principal) -> Option<&User> {
        self.all.iter().find(|user| user.id == id)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.all.iter()
    }
}

/// One thing that should be so of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserChange {
    /// There is a user of this name, with these ways to be known. Void if there is one already.
    Add {
        /// The name.
        name: String,
        /// The hash of the password, if there is to be one.
        password: Option<String>,
        /// The SHA-256 of the token, if there is to be one.
        token: Option<[u8; 32]>,
    },
    /// There is none.
    Remove(String),
    /// The hash of this user's password; `None` for no password.
    Password(String, Option<String>),
    /// The SHA-256 of this user's token; `None` for no token.
    Token(String, Option<[u8; 32]>),
    /// This user has the right.
    Grant(String, Right),
    /// This user does not have it.
    Revoke(String, Right),
    /// Whether what somebody may not do is refused. Void while no user has [`Right::Cluster`] and a way to be known.
    Enforce(bool),
}
