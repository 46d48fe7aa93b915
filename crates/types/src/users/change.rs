//! What can be changed about users, and what becomes of them.
//!
//! ```text
//! user change = 1 name bytes | ways
//!               2 name bytes
//!               3 name bytes | ways, without a token
//!               4 name bytes | ways, without a password
//!               5 name bytes | right
//!               6 name bytes | right
//!               7 enforced u8 (0 or 1)                                    (each number a u8)
//! ```
//!
//! Each says what should be so, so giving one twice is as good as once. A change that can't be made is void, and
//! [`Users::after`] says why.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::password::check_password_hash;
use super::{Right, User, Users, decode_bool, decode_name, decode_ways, encode_ways};
use crate::key::{invalid, shown};
use crate::limits::{KEY_BYTES_MAX, RIGHTS_OF_A_USER_MAX, USERS_BYTES_MAX, USERS_MAX};
use crate::wire::{Malformed, Reader, put_bytes};
use crate::{Failure, Principal, is_name};

/// One thing that should be so of users.
#[derive(Clone, PartialEq, Eq)]
pub enum UserChange {
    /// There is a user of this name, with these ways to be known. Void if there is one already that is known otherwise.
    Add {
        /// The name.
        name: String,
        /// The hash of the password, if there is to be one.
        password: Option<String>,
        /// The SHA-256 of the token, if there is to be one.
        token: Option<[u8; 32]>,
    },
    /// There is none. Void for the last one who may change the cluster, while rights are enforced.
    Remove(String),
    /// The hash of this user's password; `None` for no password.
    Password(String, Option<String>),
    /// The SHA-256 of this user's token; `None` for no token.
    Token(String, Option<[u8; 32]>),
    /// This user has the right.
    Grant(String, Right),
    /// This user does not have it. Void as for [`UserChange::Remove`].
    Revoke(String, Right),
    /// Whether what somebody may not do is refused. Void while no user has [`Right::Cluster`].
    Enforce(bool),
}

/// Without the hashes.
impl fmt::Debug for UserChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserChange::Add { name, password, token } => {
                write!(f, "Add({name:?}, password: {}, token: {})", password.is_some(), token.is_some())
            }
            UserChange::Remove(name) => write!(f, "Remove({name:?})"),
            UserChange::Password(name, password) => write!(f, "Password({name:?}, {})", password.is_some()),
            UserChange::Token(name, token) => write!(f, "Token({name:?}, {})", token.is_some()),
            UserChange::Grant(name, right) => write!(f, "Grant({name:?}, {right:?})"),
            UserChange::Revoke(name, right) => write!(f, "Revoke({name:?}, {right:?})"),
            UserChange::Enforce(enforced) => write!(f, "Enforce({enforced})"),
        }
    }
}

impl UserChange {
    /// The name of the user that it is about, if it is about one.
    pub fn name(&self) -> Option<&str> {
        match self {
            UserChange::Add { name, .. }
            | UserChange::Remove(name)
            | UserChange::Password(name, _)
            | UserChange::Token(name, _)
            | UserChange::Grant(name, _)
            | UserChange::Revoke(name, _) => Some(name),
            UserChange::Enforce(_) => None,
        }
    }

    fn right(&self) -> Option<&Right> {
        match self {
            UserChange::Grant(_, right) | UserChange::Revoke(_, right) => Some(right),
            _ => None,
        }
    }

    fn password(&self) -> Option<&str> {
        match self {
            UserChange::Add { password, .. } | UserChange::Password(_, password) => password.as_deref(),
            _ => None,
        }
    }

    /// Refuses what no cluster would take.
    pub fn validate(&self) -> Result<(), Failure> {
        if let Some(name) = self.name()
            && !is_name(name)
        {
            let shown = shown(name.as_bytes());
            return invalid(format!(
                "\"{shown}\" is no name for a user: use 1 to 64 letters, digits, '-', '_' or '.'"
            ));
        }
        if let Some(Right::Over(_, prefix)) = self.right()
            && prefix.len() > KEY_BYTES_MAX
        {
            let bytes = prefix.len();
            return invalid(format!("prefix of {bytes} bytes: keys have at most {KEY_BYTES_MAX}"));
        }
        if let Some(hash) = self.password()
            && let Err(why) = check_password_hash(hash)
        {
            return invalid(format!("the password's hash {why}"));
        }
        Ok(())
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let named = |kind: u8, name: &str, out: &mut BytesMut| {
            out.put_u8(kind);
            put_bytes(out, name.as_bytes());
        };
        match self {
            UserChange::Add { name, password, token } => {
                named(1, name, out);
                encode_ways(password.as_deref(), token.as_ref(), out);
            }
            UserChange::Remove(name) => named(2, name, out),
            UserChange::Password(name, password) => {
                named(3, name, out);
                encode_ways(password.as_deref(), None, out);
            }
            UserChange::Token(name, token) => {
                named(4, name, out);
                encode_ways(None, token.as_ref(), out);
            }
            UserChange::Grant(name, right) => {
                named(5, name, out);
                right.encode(out);
            }
            UserChange::Revoke(name, right) => {
                named(6, name, out);
                right.encode(out);
            }
            UserChange::Enforce(enforced) => out.put_slice(&[7, (*enforced).into()]),
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<UserChange, Malformed> {
        let kind = reader.u8()?;
        if kind == 7 {
            return Ok(UserChange::Enforce(decode_bool(reader)?));
        }
        let name = decode_name(reader)?;
        Ok(match kind {
            1 => {
                let (password, token) = decode_ways(reader)?;
                UserChange::Add { name, password, token }
            }
            2 => UserChange::Remove(name),
            3 => match decode_ways(reader)? {
                (password, None) => UserChange::Password(name, password),
                _ => return Err(Malformed("a token where a password is changed")),
            },
            4 => match decode_ways(reader)? {
                (None, token) => UserChange::Token(name, token),
                _ => return Err(Malformed("a password where a token is changed")),
            },
            5 => UserChange::Grant(name, Right::decode(reader)?),
            6 => UserChange::Revoke(name, Right::decode(reader)?),
            _ => return Err(Malformed("unknown change of users")),
        })
    }

    /// Its size for the purpose of bounds.
    pub(crate) fn weight(&self) -> usize {
        let bytes = |text: Option<&str>| text.map_or(0, str::len);
        64 + bytes(self.name()) + bytes(self.password()) + self.right().map_or(0, Right::weight)
    }
}

impl Users {
    /// The users after these of whom this is so; `None` if it is so already. An error says why it can't be, and what to do.
    pub fn after(&self, change: &UserChange) -> Result<Option<Users>, String> {
        let mut next = self.clone();
        match change {
            UserChange::Add { name, password, token } => {
                next.add(name, password.as_ref(), token.as_ref())?;
            }
            UserChange::Remove(name) => {
                if let Ok(place) = next.place_of(name) {
                    next.all.remove(place);
                }
            }
            UserChange::Password(name, password) => next.user(name)?.password.clone_from(password),
            UserChange::Token(name, token) => next.user(name)?.token = *token,
            UserChange::Grant(name, right) => {
                let rights = &mut next.user(name)?.rights;
                if let Err(place) = rights.binary_search(right) {
                    if rights.len() >= RIGHTS_OF_A_USER_MAX {
                        return Err(format!(
                            "user \"{name}\" has {RIGHTS_OF_A_USER_MAX} rights, and there can be no more: revoke some, or grant one \
                             over a shorter prefix"
                        ));
                    }
                    rights.insert(place, right.clone());
                }
            }
            UserChange::Revoke(name, right) => next.user(name)?.rights.retain(|has| has != right),
            UserChange::Enforce(enforced) => next.enforced = *enforced,
        }
        if next == *self {
            return Ok(None);
        }
        next.number();
        if next.enforced && !next.iter().any(User::may_change_cluster) {
            return Err(match change {
                UserChange::Enforce(_) => {
                    "no user may change the cluster, so nobody could once rights are enforced: grant that to one first (ringfort \
                     user grant NAME cluster)"
                }
                _ => {
                    "no other user may change the cluster, and nobody could any more while rights are enforced: grant that to \
                     another one first (ringfort user grant NAME cluster)"
                }
            }
            .to_owned());
        }
        let (before, bytes) = (self.weight(), next.weight());
        if bytes > USERS_BYTES_MAX && bytes > before {
            return Err(format!(
                "all users and their rights would take {bytes} bytes, and the limit is {USERS_BYTES_MAX}: remove users, or grant \
                 rights over shorter prefixes"
            ));
        }
        Ok(Some(next))
    }

    fn add(&mut self, name: &str, password: Option<&String>, token: Option<&[u8; 32]>) -> Result<(), String> {
        let place = match self.place_of(name) {
            Err(place) => place,
            Ok(there) => {
                let there = &self.all[there];
                if there.password.as_ref() == password && there.token.as_ref() == token {
                    return Ok(());
                }
                return Err(format!(
                    "there is a user \"{name}\" already: give that one another password or token, or remove it first"
                ));
            }
        };
        if self.all.len() >= USERS_MAX {
            return Err(format!("there are {USERS_MAX} users, and there can be no more: remove one first"));
        }
        let id = self.next;
        if id >= Principal::STRANGER {
            return Err("all numbers that users can have were given out".to_owned());
        }
        self.next = Principal(id.0 + 1);
        let (password, token) = (password.cloned(), token.copied());
        let user = User { id, name: name.to_owned(), password, token, rights: Vec::new() };
        self.all.insert(place, Arc::new(user));
        Ok(())
    }

    /// A user, to be changed.
    fn user(&mut self, name: &str) -> Result<&mut User, String> {
        let place = self.place_of(name);
        let place = place
            .map_err(|_| format!("there is no user \"{name}\": add it first (ringfort user add {name})"))?;
        Ok(Arc::make_mut(&mut self.all[place]))
    }
}
