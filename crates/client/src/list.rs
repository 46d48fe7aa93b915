//! Rows in key order, page by page (`pages`).

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use ringfort_proto::v1::{ListRequest, ListRow};
use ringfort_types::limits::KEY_BYTES_MAX;
use ringfort_types::{Code, Failure, Revision, Row};
use tokio_stream::Stream;

use crate::call::Inner;
use crate::pages::Pages;

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
    pub(crate) async fn list(self: &Arc<Inner>, list: List) -> Result<Rows, Failure> {
        for bound in [&list.prefix, &list.from] {
            if bound.len() > KEY_BYTES_MAX {
                let why =
                    format!("prefix or first key of {} bytes: the limit is {KEY_BYTES_MAX}", bound.len());
                return Err(Failure::rejected(Code::InvalidArgument, why));
            }
        }
        let mut pages = Box::new(Pages::new(self.clone(), list.into()));
        let first = pages.next().await?;
        let pages = if first.is_some() { State::Resting(pages) } else { State::Ended };
        Ok(Rows { page: first.unwrap_or_default().into(), pages })
    }
}

/// What a page is waited for with.
type Waiting = Pin<Box<dyn Future<Output = (Box<Pages>, Result<Option<Vec<ListRow>>, Failure>)> + Send>>;

enum State {
    Resting(Box<Pages>),
    /// The next page is under way.
    Waiting(Waiting),
    Ended,
}

/// Keys and rows as they come, in key order; each shard's as of one moment. Ends after the first failure.
pub struct Rows {
    page: VecDeque<ListRow>,
    pages: State,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("page", &self.page).finish_non_exhaustive()
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
                        self.pages = State::Ended;
                        let Failure { code, message, .. } = error.into();
                        Poll::Ready(Some(Err(Failure::rejected(code, message))))
                    }
                };
            }
            let mut waiting = match std::mem::replace(&mut self.pages, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Waiting(waiting) => waiting,
                State::Resting(mut pages) => Box::pin(async move {
                    let next = pages.next().await;
                    (pages, next)
                }),
            };
            match waiting.as_mut().poll(context) {
                Poll::Pending => {
                    self.pages = State::Waiting(waiting);
                    return Poll::Pending;
                }
                Poll::Ready((pages, Ok(Some(page)))) => {
                    self.page = page.into();
                    self.pages = State::Resting(pages);
                }
                Poll::Ready((_, Ok(None))) => {}
                Poll::Ready((pages, Err(Failure { code, message, .. }))) => {
                    // Where its indexes are gone it has said already what to do.
                    let advice = if code == Code::FailedPrecondition { "" } else { "; ask again" };
                    let message = format!("the list from {} broke off: {message}{advice}", pages.address());
                    return Poll::Ready(Some(Err(Failure::rejected(code, message))));
                }
            }
        }
    }
}
