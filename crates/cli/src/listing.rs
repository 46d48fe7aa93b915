//! A list that goes on where it broke off, if that is asked for: the rest is of a later moment, and it says so.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use ringfort_client::{Client, List, Rows};
use ringfort_types::{Code, Failure, Row, shown};
use tokio_stream::StreamExt;

use crate::stop::Stop;

/// How long a list that goes on tries to, without a row.
const GIVE_UP: Duration = Duration::from_mins(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

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
        Ok(Listing { client, wanted, resume, rows, last: None, left, resumed: 0 })
    }

    /// How often it broke off and went on: the rows are of so many moments and one.
    pub(crate) fn resumed(&self) -> u64 {
        self.resumed
    }

    /// The next row; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<(Bytes, Row)>, Stop> {
        let give_up = Instant::now() + GIVE_UP;
        let mut is_told = false;
        while self.left != Some(0) {
            match self.rows.next().await {
                None => break,
                // It began with the last key again.
                Some(Ok((key, _))) if self.last.as_ref() == Some(&key) => {}
                Some(Ok((key, row))) => {
                    self.left = self.left.map(|left| left - 1);
                    self.last = Some(key.clone());
                    return Ok(Some((key, row)));
                }
                Some(Err(failure)) => {
                    self.go_on(failure, is_told, give_up).await?;
                    is_told = true;
                }
            }
        }
        Ok(None)
    }

    /// Asks for the rest as it is now, for as long as there is time; says so, unless that is said.
    async fn go_on(&mut self, failure: Failure, is_told: bool, give_up: Instant) -> Result<(), Stop> {
        let is_over = |failure: &Failure| !can_go_on(failure) || Instant::now() >= give_up;
        let Some(last) = self.last.clone().filter(|_| self.resume && !is_over(&failure)) else {
            return Err(self.stop(failure));
        };
        if is_told {
            tokio::time::sleep(PAUSE).await;
        } else {
            let said = format!(
                "ringfort: {failure}\nringfort: goes on behind key \"{}\": from there on the rows are of a later moment\n",
                shown(&last)
            );
            let _ = io::stderr().write_all(said.as_bytes());
            self.resumed += 1;
        }
        self.wanted.from = last;
        self.wanted.limit = self.left.map_or(0, |left| left + 1);
        self.rows = loop {
            match self.client.list(self.wanted.clone()).await {
                Ok(rows) => break rows,
                Err(failure) if is_over(&failure) => return Err(self.stop(failure)),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        Ok(())
    }

    fn stop(&self, failure: Failure) -> Stop {
        let hint = match self.last {
            Some(_) if self.resume && can_go_on(&failure) => " (no row has come for a minute)",
            Some(_) if can_go_on(&failure) => " (with --resume it goes on from the last key by itself)",
            _ => "",
        };
        let stop = Stop::from(failure);
        Stop { message: format!("{}{hint}", stop.message), ..stop }
    }
}

/// Whether the rest may be had at a later moment.
fn can_go_on(failure: &Failure) -> bool {
    !matches!(failure.code, Code::InvalidArgument | Code::DataLoss)
}
