//! What can be said of a cluster's users: the words after `ringfort user`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use ringfort_client::Client;
use ringfort_server::{Token, hash_password};
use ringfort_types::{Access, Failure, LayoutChange, Right, UserChange, UserState, UsersState, shown};
use serde_json::{Value, json};

use crate::connection::argument;
use crate::credentials::first_line;
use crate::json::Object;
use crate::show::table;
use crate::stop::{Stop, code_by_what_is_there};
use crate::terminal::ask;

/// Until the node that was asked is asked again whether it knows, and how often.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 40;

/// The first of the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// Add a user
    Add,
    /// Show the users
    List,
    /// Remove a user
    Remove,
    /// Give a user a right
    Grant,
    /// Take a right from a user
    Revoke,
    /// Give a user another password
    Passwd,
    /// Give a user another token
    Token,
    /// Say whether what somebody may not do is refused
    Enforce,
}

/// What is said besides the words.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags<'a> {
    pub(crate) password_file: Option<&'a Path>,
    pub(crate) token: bool,
    pub(crate) no_password: bool,
}

/// How a user is to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By a password, which is the first line of this file.
    File(PathBuf),
    /// By a password, which is asked for.
    Typed,
    /// By a new token.
    Token,
    /// By neither: by a certificate, or not at all yet.
    Neither,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Add(String, Way),
    List,
    Remove(String),
    Grant(String, Right),
    Revoke(String, Right),
    Password(String, Way),
    Token(String),
    Enforce(bool),
}

/// What is said of it.
#[derive(Debug)]
pub(crate) struct Answer {
    /// To people.
    pub(crate) text: String,
    /// Beside it, on stderr.
    pub(crate) remark: Option<String>,
    /// To programs.
    pub(crate) json: Value,
}

impl Order {
    /// What these words, the first of them apart, and flags ask for.
    pub(crate) fn read(what: Action, words: &[OsString], flags: Flags<'_>) -> Result<Order, Stop> {
        let Flags { password_file, token, no_password } = flags;
        if token && what != Action::Add {
            return Err(Stop::usage(
                "--token is for `ringfort user add`; `ringfort user token NAME` makes another one",
            ));
        }
        if (password_file.is_some() || no_password) && !matches!(what, Action::Add | Action::Passwd) {
            return Err(Stop::usage(
                "--new-password-file and --no-password are for `ringfort user add` and `passwd`: leave them out",
            ));
        }
        let way = match (password_file, token, no_password) {
            (Some(file), _, _) => Way::File(file.to_owned()),
            (None, true, _) => Way::Token,
            (None, false, true) => Way::Neither,
            (None, false, false) => Way::Typed,
        };
        let verb = what.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        match (what, words) {
            (Action::List, []) => Ok(Order::List),
            (Action::List, _) => Err(Stop::usage("list takes no words: it shows all users")),
            (Action::Enforce, [word]) => match word.to_str() {
                Some("on") => Ok(Order::Enforce(true)),
                Some("off") => Ok(Order::Enforce(false)),
                _ => Err(enforce()),
            },
            (Action::Enforce, _) => Err(enforce()),
            (Action::Add, [of]) => Ok(Order::Add(name(of)?, way)),
            (Action::Remove, [of]) => Ok(Order::Remove(name(of)?)),
            (Action::Passwd, [of]) => Ok(Order::Password(name(of)?, way)),
            (Action::Token, [of]) => Ok(Order::Token(name(of)?)),
            (Action::Add | Action::Remove | Action::Passwd | Action::Token, _) => Err(Stop::usage(format!(
                "{verb} takes the name of one user: `ringfort user list` lists them"
            ))),
            (Action::Grant | Action::Revoke, [of, right, prefix @ ..]) if prefix.len() <= 1 => {
                let (of, right) = (name(of)?, right_of(right, prefix.first())?);
                Ok(if what == Action::Grant { Order::Grant(of, right) } else { Order::Revoke(of, right) })
            }
            (Action::Grant | Action::Revoke, _) => Err(Stop::usage(format!(
                "{verb} takes a user and a right, as in `ringfort user grant ada read app/` and `ringfort user revoke ada cluster`"
            ))),
        }
    }
}

fn enforce() -> Stop {
    Stop::usage("say on or off: `ringfort user enforce on` refuses what somebody may not do")
}

fn name(word: &OsStr) -> Result<String, Stop> {
    word.to_str().map(str::to_owned).ok_or_else(|| Stop::usage("a name of a user is not UTF-8"))
}

fn right_of(word: &OsStr, prefix: Option<&OsString>) -> Result<Right, Stop> {
    let said = word.to_string_lossy();
    if said == "cluster" {
        return match prefix {
            None => Ok(Right::Cluster),
            Some(_) => Err(Stop::usage("the right cluster is over no keys: leave the prefix out")),
        };
    }
    let access = Access::ALL.into_iter().find(|access| access.to_string() == said);
    let access = access.ok_or_else(|| {
        Stop::usage(format!("{said:?} is no right: there are read, write and admin over keys, and cluster"))
    })?;
    Ok(Right::Over(access, prefix.map(|prefix| argument(prefix)).unwrap_or_default()))
}

/// The hash of the password that a user is to have, if it is to be one; asked for where it is typed.
fn password_hash(of: &str, way: &Way) -> Result<Option<String>, Stop> {
    let password = match way {
        Way::File(file) => first_line("--new-password-file", file)?,
        Way::Typed => {
            let question = format!("New password of {of}: ");
            let password = ask(&question)?.ok_or_else(|| {
                Stop::usage(format!(
                    "say how user {of:?} is known: --new-password-file FILE (- for stdin), --token with `ringfort user add`, or \
                     --no-password"
                ))
            })?;
            if ask("Once more: ")?.as_ref() != Some(&password) {
                return Err(Stop::usage("the two are not the same: nothing is changed"));
            }
            password
        }
        Way::Token | Way::Neither => return Ok(None),
    };
    hash_password(password.as_bytes()).map(Some).map_err(Stop::usage)
}

/// What is to be done, once all that has to be asked for is there.
#[derive(Debug)]
pub(crate) struct Prepared {
    order: Order,
    change: Option<UserChange>,
    /// A token that the user is to be told, as it is shown to nodes.
    token: Option<String>,
}

impl Order {
    /// Reads or asks for what is needed of secrets, and makes those that are new.
    pub(crate) fn prepare(self) -> Result<Prepared, Stop> {
        let mut shown = None;
        let mut token = |of: &str| -> Result<[u8; 32], Stop> {
            let token = Token::new().map_err(Stop::unavailable)?;
            shown = Some(token.of(of));
            Ok(token.sha256())
        };
        let change = match &self {
            Order::List => None,
            Order::Add(name, way) => {
                let token = if *way == Way::Token { Some(token(name)?) } else { None };
                Some(UserChange::Add { name: name.clone(), password: password_hash(name, way)?, token })
            }
            Order::Password(name, way) => Some(UserChange::Password(name.clone(), password_hash(name, way)?)),
            Order::Token(name) => Some(UserChange::Token(name.clone(), Some(token(name)?))),
            Order::Remove(name) => Some(UserChange::Remove(name.clone())),
            Order::Grant(name, right) => Some(UserChange::Grant(name.clone(), right.clone())),
            Order::Revoke(name, right) => Some(UserChange::Revoke(name.clone(), right.clone())),
            Order::Enforce(enforced) => Some(UserChange::Enforce(*enforced)),
        };
        if let Some(change) = &change {
            change.validate()?;
        }
        Ok(Prepared { order: self, change, token: shown })
    }
}

impl Prepared {
    /// Does it.
    pub(crate) async fn carry_out(self, client: &Client) -> Result<Answer, Stop> {
        let Prepared { order, change, token } = self;
        if let Some(change) = change {
            let changed = client.change_layout(LayoutChange::Users(change)).await;
            changed.map_err(|failure| stop(&failure))?;
        }
        let answer = |text: String, json: Value| Answer { text, remark: None, json };
        Ok(match order {
            Order::List => {
                let users = client.users().await?;
                answer(list_text(&users), list_json(&users))
            }
            Order::Add(name, way) => {
                let json = json!({
                    "user": name, "password": matches!(way, Way::File(_) | Way::Typed), "token": way == Way::Token, "rights": [],
                });
                match token {
                    Some(token) => with_token(&name, token, json),
                    None if way == Way::Neither => answer(
                        format!(
                            "user {name} is added, and known by a certificate of this name alone; it has no rights yet"
                        ),
                        json,
                    ),
                    None => answer(
                        format!("user {name} is added, and known by a password; it has no rights yet"),
                        json,
                    ),
                }
            }
            Order::Remove(name) => {
                answer(format!("there is no user {name} any more"), json!({"user": name, "removed": true}))
            }
            Order::Password(name, way) => {
                let has = way != Way::Neither;
                let what = if has { "another password" } else { "no password" };
                answer(format!("user {name} has {what} now"), json!({"user": name, "password": has}))
            }
            Order::Token(name) => {
                let json = json!({"user": name, "token": true});
                with_token(&name, token.unwrap_or_default(), json)
            }
            Order::Grant(name, right) => rights_now(client, &name, &right, true).await?,
            Order::Revoke(name, right) => rights_now(client, &name, &right, false).await?,
            Order::Enforce(enforced) => {
                answer(enforced_text(enforced).to_owned(), json!({"enforced": enforced}))
            }
        })
    }
}

fn with_token(name: &str, token: String, mut json: Value) -> Answer {
    json["new_token"] = token.clone().into();
    let remark = format!(
        "this is the token of user {name}: it is shown this once; keep it in a file, for --token-file"
    );
    Answer { text: token, remark: Some(remark), json }
}

/// The rights that a user has, once a node that is asked knows of this one.
async fn rights_now(client: &Client, name: &str, right: &Right, has: bool) -> Result<Answer, Stop> {
    for _ in 0..LOOKS {
        let users = client.users().await?;
        let user = users.users.into_iter().find(|user| user.name == name);
        if let Some(user) = user.filter(|user| user.rights.contains(right) == has) {
            let text = if user.rights.is_empty() {
                format!("user {name} has no rights")
            } else {
                format!("user {name} may {}", rights_text(&user.rights))
            };
            return Ok(Answer { text, remark: None, json: user_json(&user) });
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Stop::unavailable(
        "it is done, but the node that was asked does not show it: look again with `ringfort user list`",
    ))
}

/// What a change ends with that a cluster does not take: what there is of users forbids it.
fn stop(failure: &Failure) -> Stop {
    Stop { code: code_by_what_is_there(failure), message: failure.to_string() }
}

fn enforced_text(enforced: bool) -> &'static str {
    if enforced {
        "rights are enforced: what somebody may not do is refused"
    } else {
        "rights are not enforced: everybody may do everything"
    }
}

fn right_text(right: &Right) -> String {
    match right {
        Right::Over(access, prefix) => format!("{access} \"{}\"", shown(prefix)),
        Right::Cluster => "cluster".to_owned(),
    }
}

fn rights_text(rights: &[Right]) -> String {
    rights.iter().map(right_text).collect::<Vec<_>>().join(", ")
}

fn list_text(users: &UsersState) -> String {
    let row = |user: &UserState| {
        let known = match (user.has_password, user.has_token) {
            (true, true) => "password, token",
            (true, false) => "password",
            (false, true) => "token",
            (false, false) => "certificate",
        };
        vec![user.name.clone(), known.to_owned(), rights_text(&user.rights)]
    };
    let rows: Vec<_> = users.users.iter().map(row).collect();
    let users_table =
        if rows.is_empty() { String::new() } else { table(&["USER", "KNOWN BY", "MAY"], &rows) };
    format!("{users_table}{}", enforced_text(users.enforced))
}

fn list_json(users: &UsersState) -> Value {
    json!({"enforced": users.enforced, "users": users.users.iter().map(user_json).collect::<Vec<_>>()})
}

fn user_json(user: &UserState) -> Value {
    json!({
        "user": user.name,
        "password": user.has_password,
        "token": user.has_token,
        "rights": user.rights.iter().map(right_json).collect::<Vec<_>>(),
    })
}

fn right_json(right: &Right) -> Value {
    let object = match right {
        Right::Over(access, prefix) => {
            Object::new().field("right", access.to_string()).bytes("prefix", prefix)
        }
        Right::Cluster => Object::new().field("right", "cluster"),
    };
    serde_json::from_slice(&object.finish()).expect("an object that was just written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, flags: Flags<'_>) -> Result<Order, Stop> {
        let mut words = line.split(' ');
        let what = Action::from_str(words.next().expect("a word"), false).expect("known");
        Order::read(what, &words.map(OsString::from).collect::<Vec<_>>(), flags)
    }

    #[test]
    fn words_are_read_as_they_are_meant() {
        let none = Flags::default();
        let (token, no_password) = (Flags { token: true, ..none }, Flags { no_password: true, ..none });
        let file = Flags { password_file: Some(Path::new("f")), ..none };
        let over = |access, prefix: &'static str| Right::Over(access, prefix.into());
        let ada = || "ada".to_owned();
        for (line, flags, order) in [
            ("list", none, Order::List),
            ("add ada", none, Order::Add(ada(), Way::Typed)),
            ("add ada", token, Order::Add(ada(), Way::Token)),
            ("add ada", no_password, Order::Add(ada(), Way::Neither)),
            ("passwd ada", file, Order::Password(ada(), Way::File("f".into()))),
            ("token ada", none, Order::Token(ada())),
            ("remove ada", none, Order::Remove(ada())),
            ("grant ada read app/", none, Order::Grant(ada(), over(Access::Read, "app/"))),
            ("grant ada write", none, Order::Grant(ada(), over(Access::Write, ""))),
            ("revoke ada admin a", none, Order::Revoke(ada(), over(Access::Admin, "a"))),
            ("grant ada cluster", none, Order::Grant(ada(), Right::Cluster)),
            ("enforce on", none, Order::Enforce(true)),
            ("enforce off", none, Order::Enforce(false)),
        ] {
            assert_eq!(read(line, flags), Ok(order), "{line}");
        }
        for (line, flags, says) in [
            ("add", none, "add takes the name of one user"),
            ("remove a b", none, "remove takes the name of one user"),
            ("list ada", none, "list takes no words"),
            ("grant ada", none, "`ringfort user grant ada read app/`"),
            ("grant ada fly", none, "read, write and admin over keys, and cluster"),
            ("grant ada cluster x", none, "leave the prefix out"),
            ("revoke ada read a b", none, "`ringfort user revoke ada cluster`"),
            ("enforce", none, "on or off"),
            ("enforce yes", none, "on or off"),
            ("token ada", token, "--token is for"),
            ("remove ada", no_password, "--no-password are for"),
            ("grant ada cluster", file, "--new-password-file"),
        ] {
            let stop = read(line, flags).expect_err(line);
            assert!(stop.code == 2 && stop.message.contains(says), "{line}: {stop:?}");
        }
    }

    #[test]
    fn users_are_shown_with_what_they_may_do() {
        let rights = vec![
            Right::Over(Access::Read, "app/".into()),
            Right::Over(Access::Admin, b"\xff"[..].into()),
            Right::Cluster,
        ];
        let ada = UserState { name: "ada".into(), has_password: true, has_token: false, rights };
        let eve = UserState { name: "eve".into(), has_password: false, has_token: false, rights: Vec::new() };
        let users = UsersState { enforced: true, users: vec![ada, eve] };
        assert_eq!(
            list_text(&users),
            "USER  KNOWN BY     MAY\nada   password     read \"app/\", admin \"\\xff\", cluster\neve   certificate\n\
             rights are enforced: what somebody may not do is refused"
        );
        assert_eq!(
            list_json(&users),
            json!({"enforced": true, "users": [
                {"user": "ada", "password": true, "token": false, "rights": [
                    {"right": "read", "prefix": "app/"}, {"right": "admin", "prefix_base64": "/w=="}, {"right": "cluster"},
                ]},
                {"user": "eve", "password": false, "token": false, "rights": []},
            ]})
        );
        assert_eq!(list_text(&UsersState::default()), "rights are not enforced: everybody may do everything");
    }
}
