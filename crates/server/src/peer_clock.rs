//! How far another node's clock is from this one's, for those who watch it. Nothing in the node goes by it.
//!
//! It is asked for over the connection that there is to the node, now and then. The answer is from some moment between question and answer:
//! so it is taken to be from the middle, and is wrong by half of the round trip at most.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringfort_proto::internal::TimeRequest;
use ringfort_proto::internal::peer_client::PeerClient;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;

use crate::metrics::PeerMetrics;

/// How often.
const EVERY: Duration = Duration::from_secs(10);
/// An answer that takes longer says too little.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);

/// The time, in microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Notes it, for as long as this is polled.
pub(crate) async fn watch(mut client: PeerClient<Channel>, metrics: &PeerMetrics) -> Infallible {
    loop {
        let (asked, asked_us) = (Instant::now(), now_us());
        match timeout(ROUND_TRIP_MAX, client.time(TimeRequest {})).await {
            Ok(Ok(answer)) => {
                let there_us = answer.into_inner().unix_us;
                metrics.set_clock_offset(Some(offset_us(asked_us, asked.elapsed(), there_us)));
            }
            // An older node.
            Ok(Err(status)) if status.code() == Code::Unimplemented => std::future::pending().await,
            Ok(Err(_)) | Err(_) => {}
        }
        sleep(EVERY).await;
    }
}

fn offset_us(asked_us: u64, round_trip: Duration, there_us: u64) -> i64 {
    let here_us = asked_us + round_trip.as_micros() as u64 / 2;
    there_us.wrapping_sub(here_us) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_from_the_middle_of_its_round_trip() {
        let trip = Duration::from_micros(200);
        assert_eq!(offset_us(1_000_000, trip, 1_000_100), 0);
        assert_eq!(offset_us(1_000_000, trip, 1_500_100), 500_000);
        assert_eq!(offset_us(1_000_000, trip, 0), -1_000_100);
    }
}
