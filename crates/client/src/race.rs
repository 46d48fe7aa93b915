//! Several futures at once, of which the first that is done counts.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

/// The first of `running` that is done, and its place. Waits forever if there is none.
pub(crate) async fn first<F: Future + ?Sized>(running: &mut [Pin<Box<F>>]) -> (usize, F::Output) {
    std::future::poll_fn(|context| {
        for (place, one) in running.iter_mut().enumerate() {
            if let Poll::Ready(done) = one.as_mut().poll(context) {
                return Poll::Ready((place, done));
            }
        }
        Poll::Pending
    })
    .await
}

/// Starts one after another, each when one before it has failed or nothing was heard for `pause`; the first success
/// counts. If all fail: why, in their order.
pub(crate) async fn staggered<T, E, F>(
    futures: impl IntoIterator<Item = F>,
    pause: Duration,
) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = futures.into_iter().enumerate().peekable();
    let (mut running, mut places, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        if let Some((place, next)) = waiting.next() {
            running.push(Box::pin(next));
            places.push(place);
        } else if running.is_empty() {
            failed.sort_by_key(|(place, _)| *place);
            return Err(failed.into_iter().map(|(_, why)| why).collect());
        }
        let more = waiting.peek().is_some();
        tokio::select! {
            biased;
            (at, done) = first(&mut running) => match done {
                Ok(told) => return Ok(told),
                Err(why) => {
                    drop(running.swap_remove(at));
                    failed.push((places.swap_remove(at), why));
                }
            },
            () = tokio::time::sleep(pause), if more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const PAUSE: Duration = Duration::from_millis(50);

    /// Done after so many pauses.
    async fn after(pauses: u32, result: Result<u32, u32>) -> Result<u32, u32> {
        tokio::time::sleep(PAUSE * pauses).await;
        result
    }

    #[tokio::test]
    async fn a_silent_one_costs_a_pause_and_a_failed_one_nothing() {
        let begun = Instant::now();
        let told = staggered([after(100, Ok(1)), after(0, Err(2)), after(0, Ok(3))], PAUSE).await;
        assert_eq!(told, Ok(3));
        assert!(begun.elapsed() >= PAUSE && begun.elapsed() < PAUSE * 10, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn one_that_was_passed_over_may_still_be_the_first() {
        assert_eq!(staggered([after(2, Ok(1)), after(100, Ok(2))], PAUSE).await, Ok(1));
    }

    #[tokio::test]
    async fn failures_come_in_order() {
        let failing = [after(2, Err(1)), after(0, Err(2)), after(1, Err(3))];
        assert_eq!(staggered(failing, PAUSE).await, Err(vec![1, 2, 3]));
        let nobody = std::iter::empty::<std::future::Ready<Result<u32, u32>>>();
        assert_eq!(staggered(nobody, PAUSE).await, Err(vec![]));
    }
}
