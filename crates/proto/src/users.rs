//! Users, to their messages and back.

use bytes::Bytes;
use ringfort_types::{Access, Code, Failure, LayoutChange, Reply, Right, UserChange, UserState, UsersState};

use crate::v1;
use crate::v1::change_layout_request::Change;

fn invalid(why: &str) -> Failure {
    Failure::rejected(Code::InvalidArgument, why)
}

fn access(said: i32) -> Option<Access> {
    match v1::Access::try_from(said) {
        Ok(v1::Access::Read) => Some(Access::Read),
        Ok(v1::Access::Write) => Some(Access::Write),
        Ok(v1::Access::Admin) => Some(Access::Admin),
        Ok(v1::Access::Unspecified) | Err(_) => None,
    }
}

impl From<Access> for v1::Access {
    fn from(access: Access) -> v1::Access {
        match access {
            Access::Read => v1::Access::Read,
            Access::Write => v1::Access::Write,
            Access::Admin => v1::Access::Admin,
        }
    }
}

/// The right that a message tells of; `None` if it tells of none that is known here.
fn right_of(right: Option<v1::Right>) -> Option<Right> {
    match right?.right? {
        // In memory of its own: it may stay for as long as the user does.
        v1::right::Right::Keys(keys) => {
            Some(Right::Over(access(keys.access)?, Bytes::copy_from_slice(&keys.prefix)))
        }
        v1::right::Right::Cluster(v1::ClusterRight {}) => Some(Right::Cluster),
    }
}

impl From<Right> for v1::Right {
    fn from(right: Right) -> v1::Right {
        let right = match right {
            Right::Over(access, prefix) => {
                v1::right::Right::Keys(v1::KeysRight { access: v1::Access::from(access).into(), prefix })
            }
            Right::Cluster => v1::right::Right::Cluster(v1::ClusterRight {}),
        };
        v1::Right { right: Some(right) }
    }
}

fn token_of(token: Option<Bytes>) -> Result<Option<[u8; 32]>, Failure> {
    let token = token.map(|token| <[u8; 32]>::try_from(&token[..])).transpose();
    token.map_err(|_| invalid("token_sha256: give the 32 bytes of a SHA-256"))
}

/// The change of users that a request asks for; `None` if it is about something else.
pub(crate) fn change_of(change: &mut Option<Change>) -> Option<Result<LayoutChange, Failure>> {
    let given = |user: v1::UserRight, make: fn(String, Right) -> UserChange| {
        let right = right_of(user.right);
        let right = right.ok_or_else(|| {
            invalid(
                "right: set keys with an access, which is 1 for read, 2 for write, 3 for admin; or cluster",
            )
        })?;
        Ok(make(user.name, right))
    };
    let users = match change.take_if(|change| is_of_users(change))? {
        Change::AddUser(v1::AddUser { name, password_hash, token_sha256 }) => {
            token_of(token_sha256).map(|token| UserChange::Add { name, password: password_hash, token })
        }
        Change::RemoveUser(name) => Ok(UserChange::Remove(name)),
        Change::SetPassword(v1::SetPassword { name, password_hash }) => {
            Ok(UserChange::Password(name, password_hash))
        }
        Change::SetToken(v1::SetToken { name, token_sha256 }) => {
            token_of(token_sha256).map(|token| UserChange::Token(name, token))
        }
        Change::Grant(user) => given(user, UserChange::Grant),
        Change::Revoke(user) => given(user, UserChange::Revoke),
        Change::EnforceRights(enforced) => Ok(UserChange::Enforce(enforced)),
        _ => return None,
    };
    Some(users.and_then(|users| users.validate().map(|()| LayoutChange::Users(users))))
}

fn is_of_users(change: &Change) -> bool {
    matches!(
        change,
        Change::AddUser(_)
            | Change::RemoveUser(_)
            | Change::SetPassword(_)
            | Change::SetToken(_)
            | Change::Grant(_)
            | Change::Revoke(_)
            | Change::EnforceRights(_)
    )
}

/// What asks for a change of users.
pub(crate) fn change_message(change: &UserChange) -> Change {
    let token = |token: &Option<[u8; 32]>| token.map(|token| Bytes::copy_from_slice(&token));
    let given = |name: &str, right: &Right| v1::UserRight {
        name: name.to_owned(),
        right: Some(right.clone().into()),
    };
    match change {
        UserChange::Add { name, password, token: of } => Change::AddUser(v1::AddUser {
            name: name.clone(),
            password_hash: password.clone(),
            token_sha256: token(of),
        }),
        UserChange::Remove(name) => Change::RemoveUser(name.clone()),
        UserChange::Password(name, password) => {
            Change::SetPassword(v1::SetPassword { name: name.clone(), password_hash: password.clone() })
        }
        UserChange::Token(name, of) => {
            Change::SetToken(v1::SetToken { name: name.clone(), token_sha256: token(of) })
        }
        UserChange::Grant(name, right) => Change::Grant(given(name, right)),
        UserChange::Revoke(name, right) => Change::Revoke(given(name, right)),
        UserChange::Enforce(enforced) => Change::EnforceRights(*enforced),
    }
}

impl From<UsersState> for v1::ListUsersResponse {
    fn from(state: UsersState) -> v1::ListUsersResponse {
        let user = |user: UserState| v1::User {
            name: user.name,
            has_password: user.has_password,
            has_token: user.has_token,
            rights: user.rights.into_iter().map(Into::into).collect(),
        };
        v1::ListUsersResponse { enforced: state.enforced, users: state.users.into_iter().map(user).collect() }
    }
}

impl From<v1::ListUsersResponse> for Reply {
    fn from(told: v1::ListUsersResponse) -> Reply {
        let user = |user: v1::User| UserState {
            name: user.name,
            has_password: user.has_password,
            has_token: user.has_token,
            // A node that says something else is newer; it is not shown.
            rights: user.rights.into_iter().filter_map(|right| right_of(Some(right))).collect(),
        };
        Reply::Users(UsersState {
            enforced: told.enforced,
            users: told.users.into_iter().map(user).collect(),
        })
    }
}

/// The message that answers `ListUsers`.
pub fn into_list_users(reply: Reply) -> Result<v1::ListUsersResponse, Failure> {
    match reply {
        Reply::Users(state) => Ok(state.into()),
        other => Err(other.into_failure()),
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{Call, Request};

    use super::*;
    use crate::unary::change_layout;

    const HASH: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRvZjE2Ynl0$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

    fn changes() -> Vec<UserChange> {
        let name = || "ada".to_owned();
        let over = |access| Right::Over(access, Bytes::from_static(b"a/\xff"));
        vec![
            UserChange::Add { name: name(), password: None, token: None },
            UserChange::Add { name: name(), password: Some(HASH.to_owned()), token: Some([7; 32]) },
            UserChange::Remove(name()),
            UserChange::Password(name(), Some(HASH.to_owned())),
            UserChange::Password(name(), None),
            UserChange::Token(name(), Some([0; 32])),
            UserChange::Token(name(), None),
            UserChange::Grant(name(), over(Access::Read)),
            UserChange::Grant(name(), over(Access::Write)),
            UserChange::Revoke(name(), Right::Over(Access::Admin, Bytes::new())),
            UserChange::Revoke(name(), Right::Cluster),
            UserChange::Enforce(true),
            UserChange::Enforce(false),
        ]
    }

    #[test]
    fn changes_round_trip() {
        for change in changes() {
            let request = change_layout(&LayoutChange::Users(change.clone())).expect("clients ask for it");
            let asked = Request::ChangeLayout(LayoutChange::Users(change));
            assert_eq!(Call::try_from(request).map(|call| call.request), Ok(asked));
        }
    }

    #[test]
    fn what_says_nothing_that_is_known_is_refused() {
        let right = |access| v1::Right {
            right: Some(v1::right::Right::Keys(v1::KeysRight { access, prefix: Bytes::new() })),
        };
        let user = |right| v1::UserRight { name: "ada".to_owned(), right };
        for change in [
            Change::Grant(user(None)),
            Change::Grant(user(Some(v1::Right { right: None }))),
            Change::Revoke(user(Some(right(0)))),
            Change::Grant(user(Some(right(4)))),
            Change::RemoveUser("a b".to_owned()),
            Change::RemoveUser(String::new()),
            Change::SetPassword(v1::SetPassword {
                name: "ada".to_owned(),
                password_hash: Some("secret".into()),
            }),
            Change::SetToken(v1::SetToken { name: "ada".to_owned(), token_sha256: Some("short".into()) }),
        ] {
            let asked = Call::try_from(v1::ChangeLayoutRequest { change: Some(change.clone()) });
            assert_eq!(asked.unwrap_err().code, Code::InvalidArgument, "{change:?}");
        }
    }

    #[test]
    fn users_are_shown_without_their_hashes() {
        let rights = vec![Right::Over(Access::Read, Bytes::from_static(b"a/")), Right::Cluster];
        let ada = UserState { name: "ada".to_owned(), has_password: true, has_token: false, rights };
        let reply = Reply::Users(UsersState { enforced: true, users: vec![ada] });
        assert_eq!(Reply::from(into_list_users(reply.clone()).unwrap()), reply);
    }
}
