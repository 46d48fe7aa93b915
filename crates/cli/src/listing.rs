//! A list that goes on where it broke off, if that is asked for: the rest is of a later moment, and it says so.

use std::io::{self, Write};

use bytes::Bytes;
use clap::Args;
use ringfort_client::{Client, List, Rows};
use ringfort_types::{Code, Failure, Row, shown};
use tokio_stream::StreamExt;

use crate::stop::Stop;

/// Whether to go on.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Resume {
    /// If the list breaks off, go on from the key where it stood. The rest is of a later moment; a line on stderr says from which key on
    #[arg(long)]
    resume: bool,
}

/// Rows in key order.
pub(crate) struct Listing<'a> {
    client: &'a Client,
    wanted: List,
    resume: bool,
    rows: Rows,
    /// The last row's key.
    last: Option<Bytes>,
    /// Rows that are still wanted, if there is a limit.
    left: Option<u64>,
    /// Whether a row has come since it began, or last went on.
    has_moved: bool,
    resumed: u64,
}

impl<'a> Listing<'a> {
    pub(crate) async fn new(
        client: &'a Client,
        wanted: List,
        resume: Resume,
    ) -> Result<Listing<'a>, Failure> {
        let rows = client.list(wanted.clone()).await?;
        let left = (wanted.limit > 0).then_some(wanted.limit);
        let Resume { resume } = resume;
        Ok(Listing { client, wanted, resume, rows, last: None, left, has_moved: false, resumed: 0 })
    }

    /// How often it broke off and went on: the rows are of so many moments and one.
    pub(crate) fn resumed(&self) -> u64 {
        self.resumed
    }

    /// The next row; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<(Bytes, Row)>, Stop> {
        while self.left != Some(0) {
            match self.rows.next().await {
                None => break,
                // It began with the last key again.
                Some(Ok((key, _))) if self.last.as_ref() == Some(&key) => {}
                Some(Ok((key, row))) => {
                    self.has_moved = true;
                    self.left = self.left.map(|left| left - 1);
                    self.last = Some(key.clone());
                    return Ok(Some((key, row)));
                }
                Some(Err(failure)) => self.go_on(failure).await?,
            }
        }
        Ok(None)
    }

    async fn go_on(&mut self, failure: Failure) -> Result<(), Stop> {
        let Some(last) = self.last.as_ref().filter(|_| self.resume && self.has_moved) else {
            return Err(self.stop(failure));
        };
        let said = format!(
            "ringfort: {failure}\nringfort: goes on behind key \"{}\": from there on the rows are of a later moment\n",
            shown(last)
        );
        let _ = io::stderr().write_all(said.as_bytes());
        self.wanted.from = last.clone();
        self.wanted.limit = self.left.map_or(0, |left| left + 1);
        self.has_moved = false;
        self.resumed += 1;
        self.rows = self.client.list(self.wanted.clone()).await?;
        Ok(())
    }

    fn stop(&self, failure: Failure) -> Stop {
        let can_resume = failure.code == Code::FailedPrecondition && !self.resume;
        let stop = Stop::from(failure);
        let hint = if can_resume { " (with --resume it does that by itself)" } else { "" };
        Stop { message: format!("{}{hint}", stop.message), ..stop }
    }
}
