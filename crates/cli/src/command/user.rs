//! `ringfort user add NAME | list | remove NAME | grant NAME RIGHT [PREFIX] | revoke ... | passwd NAME | token NAME | enforce on|off`

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::connection::{Connect, with_client};
use crate::out::{self, Output};
use crate::stop::Stop;
use crate::users::{Action, Flags, Order};

/// Show or change the users, what they may do, and whether that is enforced
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    ringfort user add ada                                 asks for a password\n  \
    ringfort user add app --token > app.token             a token, for programs\n  \
    ringfort user add ada --new-password-file ada.secret\n  \
    ringfort user grant ada cluster                       may change nodes, settings and users\n  \
    ringfort user grant app write app/                    keys that begin with app/\n  \
    ringfort user grant ada admin                         all keys: reads and writes, and grants\n  \
    ringfort user revoke app write app/\n  \
    ringfort user list --json\n  \
    ringfort user enforce on                              from now on rights are what counts\n  \
    ringfort --user ada --password-file ada.secret user passwd app\n\n\
    Rights:\n  \
    read PREFIX     read keys that begin with PREFIX, and list them; all keys without one\n  \
    write PREFIX    put, delete and add to them\n  \
    admin PREFIX    both, and grant and revoke rights over them\n  \
    cluster         change the cluster: its nodes, its settings, its users\n\n\
    Users and rights are kept by the cluster itself, as hashes: no password and no token can be read from it. A change holds on all nodes within a \
    second. As long as rights are not enforced everybody may do everything, but a wrong password is refused. The last user with the right cluster \
    can't be removed while they are.\n\n\
    JSON, one object: of `list`, enforced and users (user, password, token, rights); of `add` and `grant`, the user; with a new token, new_token.")]
pub(crate) struct User {
    /// add, list, remove, grant, revoke, passwd, token or enforce
    #[arg(value_name = "ACTION")]
    action: Action,
    /// NAME after most, then RIGHT and PREFIX after grant and revoke; on or off after enforce
    #[arg(value_name = "WORD", num_args = 0..=3)]
    words: Vec<OsString>,
    /// The password that a user is given is the first line of this file; - for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_token", "no_password"])]
    new_password_file: Option<PathBuf>,
    /// Give a new user a token, and print it once
    #[arg(id = "new_token", long = "token", conflicts_with = "no_password")]
    token: bool,
    /// Give a user no password: they are known by a certificate, or a token
    #[arg(long)]
    no_password: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(asked: &User) -> Result<(), Stop> {
    let flags = Flags {
        password_file: asked.new_password_file.as_deref(),
        token: asked.token,
        no_password: asked.no_password,
    };
    let prepared = Order::read(asked.action, &asked.words, flags)?.prepare()?;
    let answer = with_client(&asked.connect, async |client| prepared.carry_out(&client).await)?;
    if asked.output.json {
        return out::line(answer.json.to_string());
    }
    out::line(&answer.text)?;
    if let Some(remark) = answer.remark {
        let _ = writeln!(std::io::stderr(), "{remark}");
    }
    Ok(())
}
