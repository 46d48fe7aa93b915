//! Files of TLS, while the node runs: read again when they change, and said when one is about to end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ringfort_tls::NodeTls;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::shared::Shared;

/// How often it is looked whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What ends within this time is said, and again each time that [`SAY_EVERY`] has passed.
const SOON: Duration = Duration::from_hours(14 * 24);
const SAY_EVERY: Duration = Duration::from_hours(12);

/// For as long as the node lives.
pub(crate) async fn watch(shared: Arc<Shared>, tls: NodeTls) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said: Option<Instant> = None;
    loop {
        look.tick().await;
        let read = tls.clone();
        // A file system that hangs is no reason for connections to.
        match tokio::task::spawn_blocking(move || read.refresh()).await {
            Ok(Ok(true)) => {
                shared.notice("the files of TLS have changed and are read again: new connections use them");
                said = None;
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                tracing::error!(
                    "the files of TLS have changed and can't be used, so those from before are: {error}"
                );
            }
            // The node ends.
            Err(_) => return,
        }
        if said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            continue;
        }
        let lifetime = tls.lifetime();
        for (whose, ends) in [("this node's", lifetime.own), ("the CA's", lifetime.ca)] {
            if let Some(line) = ends.and_then(|ends| ending(whose, ends, now())) {
                tracing::warn!("{line}");
                said = Some(Instant::now());
            }
        }
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// What to say of a certificate that ends then, if it is soon.
fn ending(whose: &str, ends: i64, now: i64) -> Option<String> {
    let left = ends - now;
    if left > SOON.as_secs() as i64 {
        return None;
    }
    let what = "put new files in its place (`ringfort certs` makes some); they are read without a restart";
    Some(if left <= 0 {
        format!("{whose} certificate has ended, and nobody who looks at it connects any more: {what}")
    } else {
        format!("{whose} certificate ends in {} days: {what}", left / 86_400)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_is_said() {
        let day = 86_400;
        assert_eq!(ending("the CA's", 15 * day, 0), None);
        assert!(ending("the CA's", 14 * day, 0).unwrap().contains("ends in 14 days"));
        assert!(ending("the CA's", 5, 5).unwrap().contains("has ended"));
    }
}
