//! A list's pages, from one node after another if need be.
//!
//! A node merges all shards, each read at one index for the whole list. The first page names the indexes; so when its node
//! is lost, or brings nothing for a second, another one is asked for the rest *at the same indexes*, and the list is of the same
//! moments as if nothing had happened. The first one asked is the one that keeps them for this (`standby`). A replica that does not
//! have an index any more says so. If no node can read at them the list breaks off: it never goes on with rows of another
//! moment. Nor does it go on if the node has named no indexes.
//!
//! A list can be slow at a good node (many shards, large rows), and would be no faster anywhere else. So a silent node stays
//! asked beside the next one, and whichever brings the page first goes on; it is left at once if it is found to hang
//! (`patience`). At most [`SOURCES_MAX`] nodes are asked at once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, BytesMut};
use ringfort_proto::v1::{ListRequest, ListResponse, ListRow};
use ringfort_retry::Retry;
use ringfort_types::{Code, Failure, Request};
use tonic::Streaming;

use crate::call::Inner;
use crate::cluster::{DETOUR, REFRESH, REFRESH_AGAIN, is_among};
use crate::link::{Connection, Link};
use crate::options::PATIENCE;
use crate::patience::suspect;
use crate::pending::NO_ANSWER;
use crate::race::first;
use crate::standby::Standby;
use crate::streams::{Told, next_of, opened};
use crate::unary;

/// Most nodes that are asked for the same page.
const SOURCES_MAX: usize = 2;
/// Any request without a key will do: it says that all nodes are equally good.
const ANY: Request = Request::ClusterState;

/// A node that is asked.
struct Source {
    link: Arc<Link>,
    /// It was silent for longer than it is waited for.
    is_late: bool,
}

/// What is left of a list.
pub(crate) struct Pages {
    inner: Arc<Inner>,
    /// The rest, as another node would be asked for it.
    wanted: ListRequest,
    has_begun: bool,
    /// All rows that were wanted have come.
    is_full: bool,
    /// Who brought the last page, or failed to bring the first.
    address: String,
    /// Whose streams have failed since the last page.
    failed: Vec<Arc<Link>>,
    /// Which of them because the node can't read at these indexes any more.
    refused: Vec<Arc<Link>>,
    /// The last one of these for the second time: nobody else can be asked.
    has_refused_again: bool,
    /// Why the first one can't.
    gone: Option<Failure>,
    /// Who else keeps what the rest is read from.
    standby: Option<Standby>,
    sources: Vec<Source>,
    /// What each of `sources` says.
    telling: Vec<Pin<Box<dyn Future<Output = Told> + Send>>>,
}

impl Pages {
    pub(crate) fn new(inner: Arc<Inner>, wanted: ListRequest) -> Pages {
        Pages {
            inner,
            wanted,
            has_begun: false,
            is_full: false,
            address: String::new(),
            failed: Vec::new(),
            refused: Vec::new(),
            has_refused_again: false,
            gone: None,
            standby: None,
            sources: Vec::new(),
            telling: Vec::new(),
        }
    }

    /// The node that brought the last page.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The next page; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<ListRow>>, Failure> {
        if self.is_full {
            return Ok(None);
        }
        let begun = Instant::now();
        let deadline = begun + self.inner.options.timeout;
        let mut retry = Retry::new(&ANY, false, begun, deadline);
        loop {
            let failure = match self.page(deadline).await {
                Ok(page) => {
                    self.inner.cluster.refresh_if_older_at(REFRESH, begun);
                    return Ok(Some(page));
                }
                Err(failure) => failure,
            };
            if !self.can_be_asked_for_elsewhere() {
                return Err(failure);
            }
            self.inner.cluster.refresh_if_older(REFRESH_AGAIN);
            if self.has_begun && failure.code == Code::FailedPrecondition {
                let gone = self.gone.get_or_insert(failure).clone();
                if self.has_refused_again || !self.is_anybody_left() {
                    return Err(gone);
                }
                continue;
            }
            if let Err(failure) = self.inner.pause(&mut retry, failure).await {
                return Err(self.gone.take().unwrap_or(failure));
            }
        }
    }

    /// Whether there is a node that may be able to read at these indexes.
    fn is_anybody_left(&self) -> bool {
        self.inner.cluster.routes().links().any(|link| !is_among(&self.refused, link))
    }

    /// The next page, of whoever brings it first.
    async fn page(&mut self, deadline: Instant) -> Result<Vec<ListRow>, Failure> {
        if self.sources.is_empty() {
            self.ask_another(deadline).await?;
        }
        loop {
            let patience = deadline.min(Instant::now() + PATIENCE);
            let (at, told) = tokio::select! {
                biased;
                told = first(&mut self.telling) => told,
                () = tokio::time::sleep_until(patience.into()) => {
                    self.note_silence();
                    if patience == deadline {
                        self.leave_all();
                        return Err(Failure::rejected(Code::DeadlineExceeded, NO_ANSWER));
                    }
                    if self.sources.len() < SOURCES_MAX && self.can_be_asked_for_elsewhere() {
                        // Who is asked already is listened to again soon.
                        let _ = self.ask_another(deadline.min(Instant::now() + DETOUR)).await;
                    }
                    continue;
                }
            };
            drop(self.telling.swap_remove(at));
            let Source { link, .. } = self.sources.swap_remove(at);
            match told {
                Ok((stream, page)) => {
                    self.leave_all();
                    return Ok(self.took(link, stream, page));
                }
                Err(status) => {
                    if status.code() == tonic::Code::FailedPrecondition {
                        self.has_refused_again = is_among(&self.refused, &link);
                        self.refused.push(link.clone());
                    }
                    if !is_among(&self.failed, &link) {
                        self.failed.push(link);
                    }
                    if self.sources.is_empty() {
                        return Err(unary::failure(&status, false));
                    }
                }
            }
        }
    }

    /// Takes a page in. Its node is asked for the one after it.
    fn took(&mut self, link: Arc<Link>, stream: Streaming<ListResponse>, page: ListResponse) -> Vec<ListRow> {
        let ListResponse { rows, last, indexes } = page;
        self.has_begun = true;
        self.failed.clear();
        self.refused.clear();
        self.gone = None;
        self.address.clone_from(&link.address);
        if self.wanted.indexes.is_empty() {
            self.wanted.indexes = indexes;
        }
        if let Some(last) = rows.last() {
            let mut from = BytesMut::with_capacity(last.key.len() + 1);
            from.extend_from_slice(&last.key);
            from.put_u8(0);
            self.wanted.from = from.freeze();
        }
        if self.wanted.limit > 0 {
            self.wanted.limit = self.wanted.limit.saturating_sub(rows.len() as u64);
        }
        self.is_full = last;
        self.keep_standby(&link);
        if !self.is_full {
            self.sources.push(Source { link, is_late: false });
            self.telling.push(Box::pin(next_of(stream)));
        }
        rows
    }

    /// As long as more is to come, another node than this one keeps it, too.
    fn keep_standby(&mut self, serving: &Arc<Link>) {
        if self.is_full || self.wanted.indexes.is_empty() {
            self.standby = None;
        } else if let Some(standby) = &self.standby {
            standby.is_served_by(serving);
        } else {
            let cluster = self.inner.cluster.clone();
            self.standby = Some(Standby::start(cluster, &self.wanted, serving.clone()));
        }
    }

    /// Nobody has said anything for [`PATIENCE`]. Who still has not shown any sign of life since the last time hangs.
    fn note_silence(&mut self) {
        for at in (0..self.sources.len()).rev() {
            let source = &mut self.sources[at];
            if source.is_late && source.link.is_slow() && self.telling.len() > 1 {
                self.sources.swap_remove(at);
                drop(self.telling.swap_remove(at));
            } else {
                source.is_late = true;
                suspect(&source.link);
            }
        }
    }

    fn leave_all(&mut self) {
        self.sources.clear();
        self.telling.clear();
    }

    /// Whether the rest can be had as of the same moments.
    fn can_be_asked_for_elsewhere(&self) -> bool {
        !self.has_begun || !self.wanted.indexes.is_empty()
    }

    /// Asks one more node for the rest, if there is one.
    async fn ask_another(&mut self, deadline: Instant) -> Result<(), Failure> {
        let asked = self.sources.iter().map(|source| source.link.clone());
        let avoid: Vec<_> = asked.chain(self.failed.iter().cloned()).collect();
        let standby = self.standby.as_ref().and_then(Standby::link).filter(|link| !is_among(&avoid, link));
        let (link, connection) = match at_once(standby, deadline).await {
            Some(ready) => ready,
            None => self.inner.cluster.pick(&ANY, &avoid, deadline).await?,
        };
        if self.sources.iter().any(|source| Arc::ptr_eq(&source.link, &link)) {
            return Ok(());
        }
        if !self.has_begun {
            self.address.clone_from(&link.address);
        }
        self.sources.push(Source { link, is_late: false });
        self.telling.push(Box::pin(opened(connection, self.wanted.clone())));
        Ok(())
    }
}

/// A node that is not waited for if it can't be reached at once.
async fn at_once(link: Option<Arc<Link>>, deadline: Instant) -> Option<(Arc<Link>, Arc<Connection>)> {
    let link = link?;
    let connection = link.ready(deadline.min(Instant::now() + DETOUR)).await.ok()?;
    Some((link, connection))
}
