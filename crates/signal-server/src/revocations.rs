//! What credentials have been withdrawn lately, so that nobody comes straight back with the same ones.
//!
//! It owns the revocations of the last hour, shared by all workers and looked at once per login and
//! refresh, never on the way of a delivery. A revocation is noted here before any worker is told to
//! close connections, and a login looks here in the very turn in which it becomes one: so whichever
//! comes first, the revocation wins. Bounded in time and number; when full the oldest is forgotten, and
//! that is counted. An edge knows only what was revoked while it listened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use parking_lot::Mutex;
use signal_core::revocation::Subject;
use tokio::time::Instant;

use crate::hooks::Grant;

/// How long a revocation is remembered. Tokens should not live longer.
const REMEMBERED_FOR: Duration = Duration::from_hours(1);

/// Users, and as many tokens, that are remembered; at most 1 KiB each.
const REMEMBERED_MAX: usize = 65_536;

/// How far a producer's clock may be off: its time is taken as within this of the edge's own.
const CLOCK_LEEWAY: Duration = Duration::from_secs(30);

/// The revocations; see the module.
#[derive(Debug, Default)]
pub(crate) struct Revocations(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    users: Recent,
    tokens: Recent,
    forgotten: u64,
}

/// Names, and when each was revoked.
#[derive(Debug, Default)]
struct Recent {
    entries: HashMap<Arc<str>, Entry>,
    /// Each name once, with when to look at it, in that order.
    order: VecDeque<(Instant, Arc<str>)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    revoked: SystemTime,
    until: Instant,
}

// === impl Revocations ===

impl Revocations {
    /// Notes a revocation; `ts` is the producer's time. A client's is not kept: its id ends with it.
    pub(crate) fn note(&self, subject: &Subject<'_>, ts: u64) {
        let now = SystemTime::now();
        let revoked = UNIX_EPOCH
            .checked_add(Duration::from_millis(ts))
            .unwrap_or(now)
            .clamp(now - CLOCK_LEEWAY, now + CLOCK_LEEWAY);
        let inner = &mut *self.0.lock();
        let recent = match subject {
            Subject::User(_) => &mut inner.users,
            Subject::Token(_) => &mut inner.tokens,
            Subject::Client(_) => return,
        };
        inner.forgotten += recent.note(subject.name(), revoked, REMEMBERED_MAX);
    }

    /// Whether what a login was granted has been withdrawn: its token, or all that its user was issued
    /// until then. Credentials that do not say when they were issued count as older.
    pub(crate) fn forbid(&self, grant: &Grant) -> bool {
        let inner = &mut *self.0.lock();
        let token = grant.token_id.as_deref().and_then(|token| inner.tokens.get(token));
        let user = grant.user_id.as_deref().and_then(|user| inner.users.get(user));
        token.is_some()
            || user.is_some_and(|revoked| grant.issued.is_none_or(|issued| issued <= revoked))
    }

    /// How many are remembered, and how many were forgotten before their time.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let inner = &mut *self.0.lock();
        let now = Instant::now();
        inner.users.expire(now);
        inner.tokens.expire(now);
        (inner.users.entries.len() + inner.tokens.entries.len(), inner.forgotten)
    }
}

// === impl Recent ===

impl Recent {
    /// Returns how many others had to be forgotten for it.
    fn note(&mut self, name: &str, revoked: SystemTime, max: usize) -> u64 {
        let now = Instant::now();
        self.expire(now);
        let until = now + REMEMBERED_FOR;
        if let Some(entry) = self.entries.get_mut(name) {
            *entry = Entry { revoked: revoked.max(entry.revoked), until };
            return 0;
        }
        let mut forgotten = 0;
        while self.entries.len() >= max {
            forgotten += u64::from(self.forget_next());
        }
        let name: Arc<str> = name.into();
        self.entries.insert(name.clone(), Entry { revoked, until });
        self.order.push_back((until, name));
        forgotten
    }

    fn get(&self, name: &str) -> Option<SystemTime> {
        let entry = self.entries.get(name)?;
        (entry.until > Instant::now()).then_some(entry.revoked)
    }

    /// Forgets what is over.
    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_next();
        }
    }

    /// Forgets the first in the order, unless it was revoked again since it was queued: then it is
    /// queued anew. Returns whether it is forgotten.
    fn forget_next(&mut self) -> bool {
        let Some((queued_until, name)) = self.order.pop_front() else { return false };
        match self.entries.get(&name) {
            Some(entry) if entry.until > queued_until => {
                self.order.push_back((entry.until, name));
                false
            }
            _ => self.entries.remove(&name).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(user: &str, token: &str, issued: Option<SystemTime>) -> Grant {
        let mut grant = Grant::user(user);
        grant.token_id = Some(token.to_owned());
        grant.issued = issued;
        grant
    }

    fn now() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(since.as_millis()).unwrap()
    }

    #[test]
    fn what_was_issued_until_then_is_forbidden() {
        let revocations = Revocations::default();
        let (before, ts) = (SystemTime::now() - Duration::from_secs(1), now());
        let after = SystemTime::now() + Duration::from_secs(1);
        revocations.note(&Subject::User("u".into()), ts);
        revocations.note(&Subject::Token("t".into()), ts);
        assert!(revocations.forbid(&grant("u", "x", Some(before))));
        assert!(revocations.forbid(&grant("u", "x", None)), "nobody knows");
        assert!(!revocations.forbid(&grant("u", "x", Some(after))), "issued since");
        assert!(revocations.forbid(&grant("v", "t", Some(after))), "a token is one token");
        assert!(!revocations.forbid(&grant("v", "x", None)));
        assert!(!revocations.forbid(&grant("t", "u", None)), "users are no tokens");
        assert!(!revocations.forbid(&Grant::default()));
        assert_eq!(revocations.counts(), (2, 0));
    }

    #[test]
    fn a_producers_clock_may_be_wrong() {
        let revocations = Revocations::default();
        let ago = |seconds| Some(SystemTime::now() - Duration::from_secs(seconds));
        for ts in [0, now() + 3_600_000, u64::MAX] {
            let user = ts.to_string();
            revocations.note(&Subject::User(user.as_str().into()), ts);
            assert!(revocations.forbid(&grant(&user, "t", ago(60))), "{ts}");
            let later = Some(SystemTime::now() + Duration::from_mins(1));
            assert!(!revocations.forbid(&grant(&user, "t", later)), "{ts}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_is_remembered_for_an_hour_since_it_was_last_said() {
        let revocations = Revocations::default();
        let note = |user: &'static str| revocations.note(&Subject::User(user.into()), now());
        note("once");
        note("twice");
        tokio::time::advance(REMEMBERED_FOR / 2).await;
        note("twice");
        assert_eq!(revocations.counts(), (2, 0));
        tokio::time::advance(REMEMBERED_FOR / 2).await;
        assert!(!revocations.forbid(&Grant::user("once")));
        assert!(revocations.forbid(&Grant::user("twice")));
        assert_eq!(revocations.counts(), (1, 0));
        tokio::time::advance(REMEMBERED_FOR / 2).await;
        assert!(!revocations.forbid(&Grant::user("twice")));
        assert_eq!(revocations.counts(), (0, 0));
        assert!(revocations.0.lock().users.order.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_bound_the_oldest_is_forgotten() {
        let mut recent = Recent::default();
        let at = SystemTime::now();
        for name in ["a", "b", "c", "a"] {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(recent.note(name, at, 3), 0);
        }
        assert_eq!(recent.note("d", at, 3), 1);
        assert!(recent.get("b").is_none(), "the oldest");
        assert!(["a", "c", "d"].iter().all(|name| recent.get(name).is_some()));
        for number in 0..1000 {
            assert_eq!(recent.note(&number.to_string(), at, 3), 1);
            assert!(recent.entries.len() <= 3 && recent.order.len() <= 3);
        }
    }
}
