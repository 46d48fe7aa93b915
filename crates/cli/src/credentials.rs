//! Who asks: the user that a command says it is of, and where the password or token comes from.
//!
//! No flag takes a secret, since everybody on the machine can read the arguments of its processes. A file has it in its first line; or it
//! is in the environment; or, on a terminal, a password is asked for.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use ringfort_client::{Credentials, Options};
use ringfort_types::is_name;

use crate::settings::{PASSWORD_VARIABLE, TOKEN_VARIABLE, secret_variable};
use crate::stop::Stop;
use crate::terminal::ask;

/// Nobody has a longer one.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Who asks
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The user who asks; on a terminal, their password is asked for if nothing else says it
    #[arg(long, value_name = "NAME", value_parser = name)]
    user: Option<String>,
    // Backticks would be shown.
    #[arg(
        long,
        value_name = "FILE", value_parser = path(),
        help = "The user's password is the first line of this file [or env: RINGFORT_PASSWORD]"
    )]
    password_file: Option<PathBuf>,
    #[arg(
        long,
        value_name = "FILE", value_parser = path(),
        help = "The user's token is the first line of this file [or env: RINGFORT_TOKEN]"
    )]
    token_file: Option<PathBuf>,
    /// Send a password or token to other machines though everybody on the way can read it
    #[arg(long)]
    insecure_password: bool,
}

impl Asker {
    /// Has a client say who asks.
    pub(crate) fn apply(&self, options: &mut Options) -> Result<(), Stop> {
        options.insecure_password = self.insecure_password;
        options.credentials = self.credentials()?;
        Ok(())
    }

    fn credentials(&self) -> Result<Option<Credentials>, Stop> {
        let token = secret("--token-file", self.token_file.as_deref(), TOKEN_VARIABLE)?;
        let password = secret("--password-file", self.password_file.as_deref(), PASSWORD_VARIABLE)?;
        match (&self.user, token, password) {
            (_, Some(_), Some(_)) => Err(Stop::usage(format!(
                "there are a password and a token (--password-file, {PASSWORD_VARIABLE}, --token-file, {TOKEN_VARIABLE}): leave one out"
            ))),
            (user, Some(token), None) => {
                let credentials = Credentials::Token(token);
                match (credentials.user(), user) {
                    (Some(of), Some(user)) if of != user => Err(Stop::usage(format!(
                        "the token is of user {of:?}, and --user says {user:?}: leave one out"
                    ))),
                    _ => Ok(Some(credentials)),
                }
            }
            (Some(name), None, Some(password)) => {
                Ok(Some(Credentials::Password { name: name.clone(), password }))
            }
            (None, None, Some(_)) => {
                Err(Stop::usage("there is a password, but no user: say --user NAME, too"))
            }
            (Some(name), None, None) => {
                let password = ask(&format!("Password of {name}: "))?.ok_or_else(|| {
                    Stop::usage(format!(
                        "user {name:?} has to show a password or a token: give --password-file FILE or --token-file FILE, or set \
                         {PASSWORD_VARIABLE} or {TOKEN_VARIABLE}"
                    ))
                })?;
                Ok(Some(Credentials::Password { name: name.clone(), password }))
            }
            (None, None, None) => Ok(None),
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    // One that begins with a dash is meant as a flag.
    if is_name(text) && !text.starts_with('-') {
        return Ok(text.to_owned());
    }
    Err("a user's name has 1 to 64 letters, digits, '-', '_' or '.', and no dash in front".to_owned())
}

fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text| {
        let is_flag = text.as_encoded_bytes().starts_with(b"-");
        if is_flag {
            Err("a name of a file that begins with a dash: put ./ in front")
        } else {
            Ok(PathBuf::from(text))
        }
    })
}

/// What a file or, without one, the environment says.
fn secret(flag: &str, file: Option<&Path>, variable: &str) -> Result<Option<String>, Stop> {
    match file {
        Some(file) => first_line(flag, file).map(Some),
        None => secret_variable(variable),
    }
}

/// The first line of a file that holds a secret; `-` is stdin.
pub(crate) fn first_line(flag: &str, file: &Path) -> Result<String, Stop> {
    let name = file.display();
    let refused = |why: String| Stop::usage(format!("{flag} {name}: {why}"));
    let unreadable = |error: std::io::Error| refused(format!("it can't be read: {error}"));
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        File::open(file)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(unreadable)?;
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("it is not UTF-8".to_owned()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(refused("its first line is empty".to_owned())),
    }
}
