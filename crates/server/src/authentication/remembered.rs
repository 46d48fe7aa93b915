//! Passwords that were right, so that not each call costs a check.
//!
//! None of them is kept: what is kept is an HMAC-SHA256, under a key that only this process has, of the user's name, the hash of their
//! password, and what they showed. So it is worth nothing elsewhere, and nothing once the user has another password.
//!
//! Bound: [`AUTH_REMEMBERED_MAX`] in two generations. When the younger one is full, the older one is forgotten; what is used comes into
//! the younger one.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use ring::hmac;
use ringfort_types::limits::AUTH_REMEMBERED_MAX;

/// Stands for a user and a password.
pub(super) type Tag = [u8; 32];

const GENERATION_MAX: usize = AUTH_REMEMBERED_MAX / 2;

pub(super) struct Remembered {
    key: hmac::Key,
    tags: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    younger: HashSet<Tag>,
    older: HashSet<Tag>,
}

impl Default for Remembered {
    fn default() -> Remembered {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the system gives random bytes, as it did for the node's number");
        Remembered { key: hmac::Key::new(hmac::HMAC_SHA256, &key), tags: Mutex::default() }
    }
}

impl Remembered {
    pub(super) fn tag(&self, name: &str, hash: Option<&str>, password: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        // With their lengths, so that no two are one.
        for part in [name.as_bytes(), hash.unwrap_or_default().as_bytes(), password] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    pub(super) fn has(&self, tag: &Tag) -> bool {
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        if tags.younger.contains(tag) {
            return true;
        }
        let is_older = tags.older.remove(tag);
        if is_older {
            tags.keep(*tag);
        }
        is_older
    }

    pub(super) fn keep(&self, tag: Tag) {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner).keep(tag);
    }
}

impl Generations {
    fn keep(&mut self, tag: Tag) {
        if self.younger.len() >= GENERATION_MAX {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_name_hash_password_or_process_is_not_known() {
        let remembered = Remembered::default();
        let tag = remembered.tag("ada", Some("hash"), b"secret");
        remembered.keep(tag);
        assert!(remembered.has(&remembered.tag("ada", Some("hash"), b"secret")));
        for (name, hash, password) in [
            ("eve", "hash", "secret"),
            ("ada", "other", "secret"),
            ("ada", "hash", "Secret"),
            ("adah", "ash", "secret"),
            ("ada", "hashs", "ecret"),
        ] {
            let tag = remembered.tag(name, Some(hash), password.as_bytes());
            assert!(!remembered.has(&tag), "{name} {hash} {password}");
        }
        assert_ne!(Remembered::default().tag("ada", Some("hash"), b"secret"), tag);
    }

    #[test]
    fn what_is_used_stays_and_no_more_than_the_bound() {
        let remembered = Remembered::default();
        let tag = |n: usize| remembered.tag("ada", None, &n.to_le_bytes());
        remembered.keep(tag(0));
        for n in 1..3 * AUTH_REMEMBERED_MAX {
            remembered.keep(tag(n));
            assert!(remembered.has(&tag(0)), "{n}");
        }
        assert!(!remembered.has(&tag(1)));
        let tags = remembered.tags.lock().unwrap();
        assert!(tags.younger.len() + tags.older.len() <= AUTH_REMEMBERED_MAX);
    }
}
