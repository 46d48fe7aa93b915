//! Who asks: makes a [`Principal`] of what a client shows.
//!
//! A name with a password or a token (`credentials`) names a user; without any, a verified certificate does; else it is nobody. What a
//! user may do is judged later, by the node.
//!
//! A password is checked with argon2id, which costs a blocking thread some 20 ms and 19 MiB: [`AUTH_CHECKS_MAX`] at a time,
//! [`AUTH_CHECKS_WAITING_MAX`] that wait. One that was right is `remembered`, so that the next call costs a hash of some bytes; several
//! calls with the same one wait for one check. The same wrong one once more is no guess: it is refused, and neither checked nor counted, so
//! that a program with a wrong password slows nobody. Guessing is slowed for an address and for a user (`guesses`). A token has 256 random bits,
//! which nobody guesses, so it costs no more than a SHA-256, and is not slowed.
//!
//! Invariants: no secret is logged or shown. A name that nobody has costs what a wrong password costs, and is told the same. What is
//! remembered is bound to the hash in the cluster's layout, so another password, or none, counts as soon as the layout says so.

mod credentials;
mod guesses;
mod passwords;
mod remembered;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ring::digest;
use ringfort_types::limits::{AUTH_CHECKS_MAX, AUTH_CHECKS_WAITING_MAX};
use ringfort_types::{Code, Door, Failure, Principal, User, is_name};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub(crate) use credentials::{Credentials, Decoded};
pub use passwords::{Token, hash_password};

use self::guesses::Guesses;
use self::remembered::{Remembered, Tag};
use crate::doors::throttle::Throttle;
use crate::shared::Shared;
use ringfort_tls::Certified;

/// Knows users by what they show. A clone knows the same.
#[derive(Clone)]
pub(crate) struct Authentication(Arc<Parts>);

struct Parts {
    shared: Arc<Shared>,
    remembered: Remembered,
    /// Passwords that were wrong.
    known_wrong: Remembered,
    guesses: Mutex<Guesses>,
    /// What comes of checks under way.
    under_way: Mutex<HashMap<Tag, watch::Receiver<Option<Checked>>>>,
    /// Checks that wait or run.
    waiting: Arc<Semaphore>,
    running: Semaphore,
    wrong: Arc<Throttle>,
}

type Checked = Result<Principal, Failure>;
/// What comes of a check, once it is done.
pub(crate) type Checking = Pin<Box<dyn Future<Output = Checked> + Send>>;

/// What is known of who asks.
pub(crate) enum Known {
    /// It is this one.
    Is(Principal),
    /// It can't be said who.
    Refused(Failure),
    /// A password is being checked.
    Soon(Checking),
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentication").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Authentication {
    pub(crate) fn new(shared: Arc<Shared>) -> Authentication {
        Authentication(Arc::new(Parts {
            shared,
            remembered: Remembered::default(),
            known_wrong: Remembered::default(),
            guesses: Mutex::default(),
            under_way: Mutex::default(),
            waiting: Arc::new(Semaphore::new(AUTH_CHECKS_MAX + AUTH_CHECKS_WAITING_MAX)),
            running: Semaphore::new(at_a_time()),
            wrong: Throttle::new("wrong passwords or tokens were given"),
        }))
    }

    /// The user that a verified certificate names; nobody's, if there is none of that name, or if it is a node's. Where certificates can be shown,
    /// who shows none is a stranger.
    pub(crate) fn certified(&self, certified: Option<&Certified>) -> Principal {
        if certified.is_none() && self.0.shared.tls().is_some() {
            return Principal::STRANGER;
        }
        let user = certified.filter(|certified| certified.node.is_none());
        let Some(name) = user.and_then(|certified| certified.user.as_deref()) else {
            return Principal::NOBODY;
        };
        let layout = self.0.shared.layout();
        layout.and_then(|layout| layout.users.named(name).map(|user| user.id)).unwrap_or(Principal::NOBODY)
    }

    /// The user that these credentials are of, shown by a client at this address; at none of the doors, by one who watches the node.
    pub(crate) fn known(
        &self,
        credentials: Result<Credentials<'_>, Failure>,
        from: IpAddr,
        door: Option<Door>,
    ) -> Known {
        let (name, known) = match credentials {
            Ok(credentials) => (Some(credentials.name()), self.look_up(&credentials, from, door)),
            Err(failure) => (None, Known::Refused(failure)),
        };
        if let Known::Refused(failure) = &known {
            self.0.audit(door, from, name, failure);
        }
        known
    }

    fn look_up(&self, credentials: &Credentials<'_>, from: IpAddr, door: Option<Door>) -> Known {
        // A node without a cluster knows no users, and says so of whatever it is asked.
        let Some(layout) = self.0.shared.layout() else { return Known::Is(Principal::NOBODY) };
        let users = &layout.users;
        match *credentials {
            Credentials::Token { name, secret } => {
                let user = users.named(name);
                if let Some(user) = user.filter(|user| is_token_of(user, &secret)) {
                    return Known::Is(user.id);
                }
                self.0.warn("token", name, from);
                Known::Refused(wrong())
            }
            Credentials::Password { name, password } => {
                self.known_by_password(users.named(name), (name, password), from, door)
            }
        }
    }

    fn known_by_password(
        &self,
        user: Option<&User>,
        (name, password): (&str, &[u8]),
        from: IpAddr,
        door: Option<Door>,
    ) -> Known {
        let parts = &self.0;
        if let Err(left) = lock(&parts.guesses).of_address(from, Instant::now()) {
            return Known::Refused(too_many(left));
        }
        let hash = user.and_then(|user| user.password.as_deref());
        let tag = parts.remembered.tag(name, hash, password);
        if let Some(user) = user
            && parts.remembered.has(&tag)
        {
            return Known::Is(user.id);
        }
        if parts.known_wrong.has(&tag) {
            return Known::Refused(wrong());
        }
        if let Err(left) = lock(&parts.guesses).of_user(name, Instant::now()) {
            return Known::Refused(too_many(left));
        }
        let mut under_way = lock(&parts.under_way);
        let told = if let Some(told) = under_way.get(&tag) {
            told.clone()
        } else {
            let Ok(place) = parts.waiting.clone().try_acquire_owned() else {
                let why = "this node has too many passwords to check: try again in a moment";
                return Known::Refused(Failure::rejected(Code::ResourceExhausted, why));
            };
            let (tell, told) = watch::channel(None);
            under_way.insert(tag, told.clone());
            let check = Check {
                parts: parts.clone(),
                name: name.to_owned(),
                password: password.to_vec(),
                hash: hash.map(str::to_owned),
                from,
                door,
                tag,
                _place: place,
            };
            // It goes on though nobody waits any more: whoever leaves has guessed, too.
            parts.shared.runtime.spawn(async move { tell.send_replace(Some(check.run().await)) });
            told
        };
        drop(under_way);
        Known::Soon(Box::pin(wait(told)))
    }
}

/// How many are checked at a time: with half of the processors at most, lest those who guess take the time of all others.
fn at_a_time() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    (processors / 2).clamp(1, AUTH_CHECKS_MAX)
}

async fn wait(mut told: watch::Receiver<Option<Checked>>) -> Checked {
    let told = told.wait_for(Option::is_some).await;
    let stopping = || Failure::rejected(Code::Stopping, "the node is stopping: ask another one");
    told.ok().and_then(|told| told.clone()).unwrap_or_else(|| Err(stopping()))
}

impl Parts {
    /// A password may have been typed in a name's place.
    fn audit(&self, door: Option<Door>, from: IpAddr, name: Option<&str>, why: &Failure) {
        if let Some(audit) = &self.shared.audit {
            audit.refused_credentials(door, from, name.filter(|name| is_name(name)), why);
        }
    }

    fn warn(&self, what: &str, name: &str, from: IpAddr) {
        // A password may have been typed in a name's place.
        let user =
            if is_name(name) { format!("user \"{name}\"") } else { "what is no name of a user".to_owned() };
        self.wrong.warn(|| format!("wrong {what} for {user} from {from}"));
    }
}

/// One password to check.
struct Check {
    parts: Arc<Parts>,
    name: String,
    password: Vec<u8>,
    hash: Option<String>,
    from: IpAddr,
    door: Option<Door>,
    tag: Tag,
    _place: OwnedSemaphorePermit,
}

impl Check {
    async fn run(self) -> Checked {
        let checked = self.checked().await;
        lock(&self.parts.under_way).remove(&self.tag);
        if let Err(failure) = &checked {
            self.parts.audit(self.door, self.from, Some(&self.name), failure);
        }
        checked
    }

    async fn checked(&self) -> Checked {
        let parts = &self.parts;
        let _running = parts.running.acquire().await;
        // Others may have been wrong while this one waited.
        lock(&parts.guesses).of_both(self.from, &self.name, Instant::now()).map_err(too_many)?;
        let (password, hash) = (self.password.clone(), self.hash.clone());
        let checking =
            parts.shared.runtime.spawn_blocking(move || passwords::is_right(&password, hash.as_deref()));
        if !checking.await.unwrap_or(false) {
            parts.known_wrong.keep(self.tag);
            lock(&parts.guesses).was_wrong(self.from, &self.name, Instant::now());
            parts.warn("password", &self.name, self.from);
            return Err(wrong());
        }
        // Another one may have been set meanwhile.
        let layout = parts.shared.layout().ok_or_else(wrong)?;
        let user =
            layout.users.named(&self.name).filter(|user| user.password == self.hash).ok_or_else(wrong)?;
        parts.remembered.keep(self.tag);
        Ok(user.id)
    }
}

fn is_token_of(user: &User, secret: &[u8; 32]) -> bool {
    let is = |stored: [u8; 32]| {
        let shown = digest::digest(&digest::SHA256, secret);
        shown.as_ref().iter().zip(stored).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    };
    user.token.is_some_and(is)
}

fn wrong() -> Failure {
    Failure::rejected(Code::Unauthenticated, "there is no such user, or the password or token is wrong")
}

/// So many wrong ones that none is looked at for a while.
fn too_many(left: Duration) -> Failure {
    let seconds = left.as_millis().div_ceil(1000).max(1);
    Failure::rejected(Code::Unauthenticated, format!("too many wrong passwords; try again in {seconds} s"))
}
