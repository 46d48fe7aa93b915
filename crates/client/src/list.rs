//! Rows in key order, as a stream of pages from one node, which merges all shards.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfort_proto::status::refused;
use ringfort_proto::v1::{ListRequest, ListResponse, ListRow};
use ringfort_retry::Retry;
use ringfort_types::limits::KEY_BYTES_MAX;
use ringfort_types::{Code, Failure, Request, Revision, Row};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::Streaming;

use crate::call::Inner;
use crate::cluster::{REFRESH, REFRESH_AGAIN};
use crate::link::Link;
use crate::pending::NO_ANSWER;
use crate::unary;

/// Why a stream that has ended did not end well: some libraries between here and the node take a cut stream for a whole one.
const CUT: &str = "it ended before its last rows";

/// Which rows are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Only keys that begin with this; empty for all.
    pub prefix: Bytes,
    /// Only keys from this one on; empty for all.
    pub from: Bytes,
    /// At most so many rows; 0 for all.
    pub limit: u64,
    /// Leave the values out: they come empty.
    pub keys_only: bool,
}

impl From<List> for ListRequest {
    fn from(list: List) -> ListRequest {
        let List { prefix, from, limit, keys_only } = list;
        // All that a node sends fits: `max_message_bytes` says nothing.
        ListRequest { prefix, from, limit, keys_only, ..ListRequest::default() }
    }
}

impl Inner {
    /// Opens a list at any node and waits for its first page.
    pub(crate) async fn list(&self, list: List) -> Result<Rows, Failure> {
        for bound in [&list.prefix, &list.from] {
            if bound.len() > KEY_BYTES_MAX {
                let why =
                    format!("prefix or first key of {} bytes: the limit is {KEY_BYTES_MAX}", bound.len());
                return Err(Failure::rejected(Code::InvalidArgument, why));
            }
        }
        // Any request without a key will do: it says that all nodes are equally good.
        let request = Request::ClusterState;
        let begun = Instant::now();
        let deadline = begun + self.options.timeout;
        let mut retry = Retry::new(&request, false, begun, deadline);
        let mut slow: Option<Arc<Link>> = None;
        loop {
            let failure = match self.cluster.pick(&request, slow.as_ref(), deadline).await {
                Err(failure) => failure,
                Ok((link, connection)) => {
                    let mut client = unary::kv(&connection.channel);
                    let opened = tokio::time::timeout_at(deadline.into(), async {
                        let mut pages =
                            client.list(tonic::Request::new(list.clone().into())).await?.into_inner();
                        let first =
                            pages.message().await?.ok_or_else(|| refused(tonic::Code::Unavailable, CUT))?;
                        Ok((pages, first))
                    });
                    match opened.await {
                        Ok(Ok((pages, first))) => {
                            self.cluster.refresh_if_older(REFRESH);
                            let timeout = self.options.timeout;
                            return Ok(Rows::new(pages, first, link.address.clone(), timeout));
                        }
                        Ok(Err(status)) => unary::failure(&status, false),
                        Err(_) => {
                            slow = Some(link);
                            Failure::rejected(Code::DeadlineExceeded, NO_ANSWER)
                        }
                    }
                }
            };
            self.cluster.refresh_if_older(REFRESH_AGAIN);
            self.pause(&mut retry, failure).await?;
        }
    }
}

/// Keys and rows as they come, in key order; each shard's as of one moment. Ends after the first failure.
#[derive(Debug)]
pub struct Rows {
    /// `None` once it has ended.
    pages: Option<Streaming<ListResponse>>,
    page: VecDeque<ListRow>,
    address: String,
    timeout: Duration,
    /// Runs while a page is being waited for.
    patience: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Rows {
    /// `first` is the page that has come already.
    fn new(pages: Streaming<ListResponse>, first: ListResponse, address: String, timeout: Duration) -> Rows {
        let patience = Box::pin(tokio::time::sleep(timeout));
        let (pages, page) = (Some(pages), VecDeque::new());
        let mut rows = Rows { pages, page, address, timeout, patience, waiting: false };
        rows.take(first);
        rows
    }

    fn take(&mut self, page: ListResponse) {
        self.waiting = false;
        self.page = page.rows.into();
        if page.last {
            self.pages = None;
        }
    }

    fn end(&mut self, code: Code, why: &str) -> Poll<Option<<Rows as Stream>::Item>> {
        self.pages = None;
        let message = format!("the list from {} broke off: {why}; ask again", self.address);
        Poll::Ready(Some(Err(Failure::rejected(code, message))))
    }
}

impl Stream for Rows {
    type Item = Result<(Bytes, Row), Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(ListRow { key, value, revision, error }) = self.page.pop_front() {
                return match error {
                    None => Poll::Ready(Some(Ok((key, Row { value, revision: Revision(revision) })))),
                    Some(error) => {
                        self.page.clear();
                        let failure = Failure::from(error);
                        self.end(failure.code, &failure.message)
                    }
                };
            }
            let Some(pages) = &mut self.pages else { return Poll::Ready(None) };
            match Pin::new(pages).poll_next(context) {
                Poll::Ready(Some(Ok(page))) => self.take(page),
                Poll::Ready(Some(Err(status))) => {
                    let failure = unary::failure(&status, false);
                    return self.end(failure.code, &failure.message);
                }
                Poll::Ready(None) => return self.end(Code::Unavailable, CUT),
                Poll::Pending => {
                    if !self.waiting {
                        self.waiting = true;
                        let until = Instant::now() + self.timeout;
                        self.patience.as_mut().reset(until.into());
                    }
                    if self.patience.as_mut().poll(context).is_ready() {
                        return self.end(Code::DeadlineExceeded, "no row in time");
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}
