//! The flags of `start` that are about the text protocol.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ringfort_server::{GetReply, TextConfig, TextSettings};

use crate::duration;
use crate::stop::Stop;

/// What answers a `GET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reply {
    /// The message alone
    Bare,
    /// `OK`, a space, and the message
    Ok,
}

/// The text protocol's port.
#[derive(Args, Debug)]
pub(crate) struct TextDoor {
    /// Where to speak the text protocol (SET, GET, DEL, a line each), too
    #[arg(long, value_name = "HOST:PORT")]
    text_addr: Option<String>,
    /// What answers a GET there [default: bare]
    #[arg(long, value_name = "HOW", value_enum)]
    text_get_reply: Option<Reply>,
    /// How long a text command may take [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    text_timeout: Option<Duration>,
    /// After this time a GET takes what any replica has, which may be old, if nobody can give it the newest; without it, never
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    text_stale_after: Option<Duration>,
    /// A file with TOLERANCE=N, read again when it changes: messages of text and family clients are OK once N replicas besides
    /// the leader have them
    #[arg(long, value_name = "FILE")]
    pub(crate) tolerance_file: Option<PathBuf>,
}

impl TextDoor {
    /// The port, if one is wanted.
    pub(crate) fn config(&self) -> Result<Option<TextConfig>, Stop> {
        let Some(listen) = self.text_addr.clone() else { return self.useless().map_or(Ok(None), Err) };
        let default = TextSettings::default();
        let settings = TextSettings {
            get_reply: match self.text_get_reply {
                None => default.get_reply,
                Some(Reply::Bare) => GetReply::Bare,
                Some(Reply::Ok) => GetReply::Ok,
            },
            timeout: self.text_timeout.unwrap_or(default.timeout),
            stale_after: self.text_stale_after,
        };
        if settings.stale_after.is_some_and(|stale_after| stale_after >= settings.timeout) {
            return Err(Stop::usage(
                "--text-stale-after is not shorter than --text-timeout, so there is no time left for it",
            ));
        }
        Ok(Some(TextConfig { listen, settings }))
    }

    /// What is said about the port, if there is none.
    fn useless(&self) -> Option<Stop> {
        let said = [
            ("--text-get-reply", self.text_get_reply.is_some()),
            ("--text-timeout", self.text_timeout.is_some()),
            ("--text-stale-after", self.text_stale_after.is_some()),
        ];
        let (flag, _) = said.into_iter().find(|(_, said)| *said)?;
        Some(Stop::usage(format!(
            "{flag} without --text-addr: say where the text protocol is to be spoken, too"
        )))
    }
}
