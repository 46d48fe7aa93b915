//! How often an address, or a user, was wrong, and how long nothing of it is looked at then.
//!
//! After [`AUTH_WRONG_MAX`] wrong passwords within [`AUTH_WRONG_MS`] nothing more is looked at for a second; after each further one twice
//! as long, up to a minute. Who was not wrong for [`AUTH_WRONG_MS`] after that begins anew. A right one changes nothing: who has a user
//! of their own would guess another one's for free.
//!
//! Bounds: [`AUTH_WRONG_TRACKED_MAX`] addresses and as many users. Beyond, the one that was wrong longest ago is forgotten. An IPv6 address
//! counts with its network of 64 bits, which one host may have as a whole.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ringfort_types::is_name;
use ringfort_types::limits::{
    AUTH_PAUSE_MAX_MS, AUTH_PAUSE_MIN_MS, AUTH_WRONG_MAX, AUTH_WRONG_MS, AUTH_WRONG_TRACKED_MAX,
};

use crate::network::network;

const WINDOW: Duration = Duration::from_millis(AUTH_WRONG_MS);
const PAUSE_MIN: Duration = Duration::from_millis(AUTH_PAUSE_MIN_MS);
const PAUSE_MAX: Duration = Duration::from_millis(AUTH_PAUSE_MAX_MS);

/// Those of addresses, and those of users.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    addresses: Wrong<IpAddr>,
    users: Wrong<String>,
}

impl Guesses {
    /// Whether somebody at this address may try; if not, for how long not.
    pub(super) fn of_address(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.addresses.check(&network(address), now)
    }

    /// The same for this user, whoever it is.
    pub(super) fn of_user(&self, name: &str, now: Instant) -> Result<(), Duration> {
        self.users.check(name, now)
    }

    pub(super) fn of_both(&self, address: IpAddr, name: &str, now: Instant) -> Result<(), Duration> {
        self.of_address(address, now).and_then(|()| self.of_user(name, now))
    }

    pub(super) fn was_wrong(&mut self, address: IpAddr, name: &str, now: Instant) {
        self.addresses.add(network(address), now);
        // What is no name is no user's, and may be long.
        if is_name(name) {
            self.users.add(name.to_owned(), now);
        }
    }
}

#[derive(Debug)]
struct Wrong<K>(HashMap<K, Tally>);

/// How often somebody was wrong.
#[derive(Clone, Copy, Debug)]
struct Tally {
    count: u32,
    since: Instant,
    last: Instant,
    /// None yet, if this is zero.
    pause: Duration,
}

impl Tally {
    fn ends(&self) -> Instant {
        self.last + self.pause
    }

    /// Whether it is as if nothing had been.
    fn is_over(&self, now: Instant) -> bool {
        now >= self.ends() + WINDOW || self.pause.is_zero() && now >= self.since + WINDOW
    }
}

impl<K> Default for Wrong<K> {
    fn default() -> Wrong<K> {
        Wrong(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> Wrong<K> {
    fn check<Q: Eq + Hash + ?Sized>(&self, key: &Q, now: Instant) -> Result<(), Duration>
    where
        K: std::borrow::Borrow<Q>,
    {
        let left = self.0.get(key).map(|tally| tally.ends().saturating_duration_since(now));
        left.filter(|left| !left.is_zero()).map_or(Ok(()), Err)
    }

    fn add(&mut self, key: K, now: Instant) {
        if self.0.len() >= AUTH_WRONG_TRACKED_MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, tally| !tally.is_over(now));
            if self.0.len() >= AUTH_WRONG_TRACKED_MAX
                && let Some(oldest) =
                    self.0.iter().min_by_key(|(_, tally)| tally.last).map(|(key, _)| key.clone())
            {
                self.0.remove(&oldest);
            }
        }
        let new = Tally { count: 0, since: now, last: now, pause: Duration::ZERO };
        let tally = self.0.entry(key).or_insert(new);
        if tally.is_over(now) {
            *tally = new;
        }
        (tally.count, tally.last) = (tally.count + 1, now);
        if tally.count >= AUTH_WRONG_MAX {
            tally.pause = (tally.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_fifth_wrong_one_costs_a_second_and_each_further_one_twice_as_much() {
        let (mut guesses, mut now) = (Guesses::default(), Instant::now());
        for _ in 0..4 {
            guesses.was_wrong(address(1), "ada", now);
            assert_eq!(guesses.of_both(address(1), "ada", now), Ok(()));
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            guesses.was_wrong(address(1), "ada", now);
            assert_eq!(guesses.of_address(address(1), now), Err(seconds * SECOND));
            assert_eq!(guesses.of_user("ada", now), Err(seconds * SECOND));
            now += seconds * SECOND;
            assert_eq!(guesses.of_both(address(1), "ada", now), Ok(()));
        }
        // Others are not concerned.
        guesses.was_wrong(address(1), "ada", now);
        assert_eq!(guesses.of_both(address(2), "eve", now), Ok(()));
        assert!(guesses.of_both(address(2), "ada", now).is_err());
        assert!(guesses.of_both(address(1), "eve", now).is_err());
        // A minute without a wrong one, after the pause.
        now += 2 * PAUSE_MAX;
        for _ in 0..4 {
            guesses.was_wrong(address(1), "ada", now);
        }
        assert_eq!(guesses.of_both(address(1), "ada", now), Ok(()));
    }

    #[test]
    fn who_is_wrong_now_and_then_is_not_slowed() {
        let (mut guesses, begun) = (Guesses::default(), Instant::now());
        for minutes in 0..20 {
            let now = begun + minutes * WINDOW / 4;
            guesses.was_wrong(address(1), "ada", now);
            assert_eq!(guesses.of_both(address(1), "ada", now), Ok(()));
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        for _ in 0..5 {
            guesses.was_wrong(address(1), "first", now);
        }
        for n in 0..AUTH_WRONG_TRACKED_MAX as u32 {
            let later = now + Duration::from_micros(1 + u64::from(n));
            guesses.was_wrong(IpAddr::from((0x0b00_0000 + n).to_be_bytes()), &format!("user{n}"), later);
        }
        assert_eq!(guesses.addresses.0.len(), AUTH_WRONG_TRACKED_MAX);
        assert_eq!(guesses.users.0.len(), AUTH_WRONG_TRACKED_MAX);
        assert_eq!(guesses.of_both(address(1), "first", now), Ok(()), "it was wrong longest ago");
        guesses.was_wrong(address(1), &"long".repeat(100), now);
        assert!(!guesses.users.0.keys().any(|name| name.len() > 64));
    }

    #[test]
    fn a_network_is_one_address() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        for n in 0..5u16 {
            guesses.was_wrong(IpAddr::from([0x2001, 0xdb8, 0, 0, n, n, n, n]), "ada", now);
        }
        assert!(guesses.of_address(IpAddr::from([0x2001, 0xdb8, 0, 0, 9, 9, 9, 9]), now).is_err());
        assert!(guesses.of_address(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, 0]), now).is_ok());
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), address(1));
    }
}
