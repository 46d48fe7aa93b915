//! A line for a client whose calls all fail before they reach the node: one that sends a list of addresses as `:authority`.
//!
//! gRPC's own way to name several servers, the target `ipv4:HOST:PORT,HOST:PORT`, makes a client of the C core (Python, Ruby, C++) send
//! that list as the authority of each call. The HTTP/2 library takes no such authority and resets the call, so that no service of the
//! node's ever sees it, and the client is told INTERNAL, without a reason (`findings/grpcio_list_target_authority.sh`). All that there is
//! of it in this process is an event for debugging; so that event is listened to, whatever the log level.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Who says it, and how it begins.
const TARGET: &str = "h2::server";
const SAID: &str = "malformed headers: malformed authority";
/// There is one line in this time: each call of such a client is reset.
const EVERY: Duration = Duration::from_hours(1);

/// Hears of such calls. To be the outermost layer.
pub(crate) fn listener<S: Subscriber + for<'span> LookupSpan<'span>>() -> impl Layer<S> {
    let is_h2 = |metadata: &Metadata<'_>| {
        metadata.is_event() && *metadata.level() == Level::DEBUG && metadata.target() == TARGET
    };
    Authorities::default().with_filter(filter_fn(is_h2))
}

#[derive(Debug, Default)]
struct Authorities {
    said: Mutex<Option<Instant>>,
}

impl<S: Subscriber> Layer<S> for Authorities {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        if !message.0.starts_with(SAID) {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|said| said.elapsed() < EVERY) {
            return;
        }
        // Not within this event: the filters of the other layers are looked up a thread at a time. There is a runtime wherever a
        // connection is served.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            *said = Some(Instant::now());
            runtime.spawn(async {
                tracing::warn!(
                    "a client's :authority is no HOST:PORT, so its calls are reset before they reach the node (INTERNAL at the client): \
                     probably the list of its target ipv4:A,B,C; set its channel option grpc.default_authority"
                );
            });
        }
    }
}

/// An event's text.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
