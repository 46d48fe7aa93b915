//! Users of a cluster, and what each may do. They stand in the cluster's layout, so every node knows them.
//!
//! ```text
//! users  = enforced u8 (0 or 1) | next varint | count varint | user × count
//! user   = number varint | name bytes | ways | count varint | right × count
//! ways   = flags u8 | password hash bytes, if flag 1 is set | token hash 32 bytes, if flag 2 is set
//! right  = 0 read, prefix bytes | 1 write, prefix bytes | 2 admin, prefix bytes | 3 cluster     (each number a u8)
//! ```
//!
//! As long as rights are not enforced, everybody may do everything, known or not. Who may do what otherwise is in `judge`; what can be
//! changed, in `change`; which hashes of passwords are taken, in `password`.
//!
//! Invariants: users ascend by name, and the rights of each ascend. A number is given to one user and never again, so that a connection of a
//! user who was removed is never another one's. While rights are enforced, somebody has [`Right::Cluster`].

mod change;
mod judge;
mod password;

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

pub use change::UserChange;
pub use judge::Verdict;

use crate::limits::{
    KEY_BYTES_MAX, NAME_BYTES_MAX, PASSWORD_HASH_BYTES_MAX, RIGHTS_OF_A_USER_MAX, USERS_MAX,
};
use crate::wire::{Malformed, Reader, put_bytes, put_varint};
use crate::{Principal, is_name};

/// Fewest bytes of an encoded user.
const USER_BYTES_MIN: usize = 5;
/// Flags of the ways in which a user is known.
const HAS_PASSWORD: u8 = 1;
const HAS_TOKEN: u8 = 2;

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

impl Access {
    /// All there are.
    pub const ALL: [Access; 3] = [Access::Read, Access::Write, Access::Admin];
}

/// As on a command line.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Admin => "admin",
        })
    }
}

/// One thing that a user may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// This, to keys that begin with these bytes; to all if there are none.
    Over(Access, Bytes),
    /// Change the cluster: its nodes, its settings, its users.
    Cluster,
}

impl Right {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Right::Over(access, prefix) => {
                out.put_u8(*access as u8);
                put_bytes(out, prefix);
            }
            Right::Cluster => out.put_u8(3),
        }
    }

    fn decode(reader: &mut Reader) -> Result<Right, Malformed> {
        let access = match reader.u8()? {
            0 => Access::Read,
            1 => Access::Write,
            2 => Access::Admin,
            3 => return Ok(Right::Cluster),
            _ => return Err(Malformed("unknown right")),
        };
        // In memory of its own: it stays for as long as the user has it.
        Ok(Right::Over(access, Bytes::copy_from_slice(&reader.bytes(KEY_BYTES_MAX)?)))
    }

    fn weight(&self) -> usize {
        match self {
            Right::Over(_, prefix) => prefix.len() + 4,
            Right::Cluster => 1,
        }
    }
}

/// Somebody who is known by a password, a token or a certificate.
#[derive(Clone, PartialEq, Eq)]
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

/// A user, as whoever may see them is shown them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserState {
    /// The name.
    pub name: String,
    /// Whether there is a password.
    pub has_password: bool,
    /// Whether there is a token.
    pub has_token: bool,
    /// What the user may do, ascending.
    pub rights: Vec<Right>,
}

impl From<&User> for UserState {
    fn from(user: &User) -> UserState {
        UserState {
            name: user.name.clone(),
            has_password: user.password.is_some(),
            has_token: user.token.is_some(),
            rights: user.rights.clone(),
        }
    }
}

/// Users, as far as whoever asks may see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsersState {
    /// Whether what somebody may not do is refused.
    pub enforced: bool,
    /// By name.
    pub users: Vec<UserState>,
}

impl UsersState {
    /// Its size for the purpose of bounds.
    pub(crate) fn weight(&self) -> usize {
        let rights = |user: &UserState| user.rights.iter().map(|right| right.weight() + 8).sum::<usize>();
        self.users.iter().map(|user| 32 + user.name.len() + rights(user)).sum()
    }
}

/// Without the hashes.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let User { id, name, password, token, rights } = self;
        let (has_password, has_token) = (password.is_some(), token.is_some());
        write!(f, "User {{ {id:?}, {name:?}, password: {has_password}, token: {has_token}, {rights:?} }}")
    }
}

impl User {
    /// Whether these rights allow this to all keys that begin with this prefix, a key itself among them.
    pub fn may(&self, access: Access, prefix: &[u8]) -> bool {
        self.has(access, prefix) || self.has(Access::Admin, prefix)
    }

    /// Whether one of the rights is this one over a prefix of `key`. The greatest that is not beyond the key is one, or else a shorter one
    /// is what it has in common with the key, or a prefix of that: so a few searches do, however many rights there are.
    fn has(&self, access: Access, mut key: &[u8]) -> bool {
        let is_up_to = |right: &Right, key: &[u8]| match right {
            Right::Over(has, over) => (*has, &over[..]) <= (access, key),
            Right::Cluster => false,
        };
        loop {
            let count = self.rights.partition_point(|right| is_up_to(right, key));
            let over = match self.rights[..count].last() {
                Some(Right::Over(has, over)) if *has == access => over,
                _ => return false,
            };
            if key.starts_with(over) {
                return true;
            }
            let common = key.iter().zip(over).take_while(|(a, b)| a == b).count();
            key = &key[..common];
        }
    }

    /// Whether they allow to change the cluster.
    pub fn may_change_cluster(&self) -> bool {
        self.rights.last() == Some(&Right::Cluster)
    }

    fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.id.0.into());
        put_bytes(out, self.name.as_bytes());
        encode_ways(self.password.as_deref(), self.token.as_ref(), out);
        put_varint(out, self.rights.len() as u64);
        self.rights.iter().for_each(|right| right.encode(out));
    }

    fn decode(reader: &mut Reader) -> Result<User, Malformed> {
        let id = u32::try_from(reader.varint()?).map_err(|_| Malformed("a user's number over its limit"))?;
        let name = decode_name(reader)?;
        let (password, token) = decode_ways(reader)?;
        let count = reader.count(1)?;
        if count > RIGHTS_OF_A_USER_MAX {
            return Err(Malformed("too many rights of a user"));
        }
        let rights = (0..count).map(|_| Right::decode(reader)).collect::<Result<Vec<_>, _>>()?;
        if !rights.is_sorted_by(|a, b| a < b) {
            return Err(Malformed("rights of a user out of order"));
        }
        Ok(User { id: Principal(id), name, password, token, rights })
    }

    /// Its size for the purpose of bounds: not less than its bytes are.
    fn weight(&self) -> usize {
        let rights: usize = self.rights.iter().map(Right::weight).sum();
        48 + self.name.len() + self.password.as_ref().map_or(0, String::len) + rights
    }
}

fn encode_ways(password: Option<&str>, token: Option<&[u8; 32]>, out: &mut BytesMut) {
    let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
    out.put_u8(flag(password.is_some(), HAS_PASSWORD) | flag(token.is_some(), HAS_TOKEN));
    if let Some(password) = password {
        put_bytes(out, password.as_bytes());
    }
    if let Some(token) = token {
        out.put_slice(token);
    }
}

fn decode_ways(reader: &mut Reader) -> Result<(Option<String>, Option<[u8; 32]>), Malformed> {
    let flags = reader.u8()?;
    if flags & !(HAS_PASSWORD | HAS_TOKEN) != 0 {
        return Err(Malformed("unknown way in which a user is known"));
    }
    let has = |flag| flags & flag != 0;
    let password = has(HAS_PASSWORD).then(|| reader.string(PASSWORD_HASH_BYTES_MAX)).transpose()?;
    let token = has(HAS_TOKEN).then(|| reader.digest()).transpose()?;
    Ok((password, token))
}

fn decode_name(reader: &mut Reader) -> Result<String, Malformed> {
    let name = reader.string(NAME_BYTES_MAX)?;
    if is_name(&name) { Ok(name) } else { Err(Malformed("not a name of a user")) }
}

/// All users of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// Whether what somebody may not do is refused.
    pub enforced: bool,
    /// By their names, ascending.
    all: Vec<Arc<User>>,
    /// Each one's number, ascending, and its place in `all`.
    places: Vec<(Principal, u32)>,
    /// The next one's number. Greater than all that are or were in use.
    next: Principal,
}

impl Default for Users {
    fn default() -> Users {
        Users { enforced: false, all: Vec::new(), places: Vec::new(), next: Principal(1) }
    }
}

impl Users {
    /// The user of this name.
    pub fn named(&self, name: &str) -> Option<&User> {
        Some(&self.all[self.place_of(name).ok()?])
    }

    /// The user of this number.
    pub fn get(&self, id: Principal) -> Option<&User> {
        let at = self.places.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(&self.all[self.places[at].1 as usize])
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &User> {
        self.all.iter().map(|user| &**user)
    }

    /// The next user's number.
    pub fn next(&self) -> Principal {
        self.next
    }

    /// Where the user of this name is, or would be.
    fn place_of(&self, name: &str) -> Result<usize, usize> {
        self.all.binary_search_by(|user| user.name.as_str().cmp(name))
    }

    /// False if two of them have one number.
    fn number(&mut self) -> bool {
        self.places = self.all.iter().zip(0..).map(|(user, place)| (user.id, place)).collect();
        self.places.sort_unstable();
        self.places.is_sorted_by(|a, b| a.0 < b.0)
    }

    fn weight(&self) -> usize {
        self.iter().map(User::weight).sum()
    }

    /// Appends their bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.enforced.into());
        put_varint(out, self.next.0.into());
        put_varint(out, self.all.len() as u64);
        self.iter().for_each(|user| user.encode(out));
    }

    /// Reads what [`Users::encode`] wrote.
    pub fn decode(reader: &mut Reader) -> Result<Users, Malformed> {
        let enforced = decode_bool(reader)?;
        let next = u32::try_from(reader.varint()?).ok().filter(|next| *next > 0);
        let next = Principal(next.ok_or(Malformed("a user's number over its limit"))?);
        let count = reader.count(USER_BYTES_MIN)?;
        if count > USERS_MAX {
            return Err(Malformed("more users than there can be"));
        }
        let all =
            (0..count).map(|_| User::decode(reader).map(Arc::new)).collect::<Result<Vec<_>, Malformed>>()?;
        if !all.is_sorted_by(|a, b| a.name < b.name) {
            return Err(Malformed("users out of order"));
        }
        let mut users = Users { enforced, all, places: Vec::new(), next };
        if !users.number() {
            return Err(Malformed("two users of one number"));
        }
        let given = |id: &Principal| *id != Principal::NOBODY && *id < next;
        if !users.places.iter().all(|(id, _)| given(id)) {
            return Err(Malformed("a user whose number was never given out"));
        }
        Ok(users)
    }
}

fn decode_bool(reader: &mut Reader) -> Result<bool, Malformed> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("neither yes nor no")),
    }
}
