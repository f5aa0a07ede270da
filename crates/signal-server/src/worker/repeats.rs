//! Which messages have come before: an emitter that holds messages while Redis is away sends those
//! again of which it cannot know whether they went out, with the id that they had.
//!
//! Pure. Owns hashes of ids and targets, in two generations: what is in neither is new. A generation
//! ends when it is full or old, and the one before it is forgotten; so a repeat is known for at least
//! one generation's time or messages. Memory is taken as it is used. A hash that two messages share
//! drops one of them: with two full generations, once in 2^48 messages.

use std::hash::BuildHasher as _;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};
use signal_core::channel::Target;

use super::wheel::Tick;

/// Ids in one generation; 295 KiB.
const GENERATION_MAX: usize = 32_768;

/// How long a generation lasts: longer than a failover, and than an emitter's call.
const GENERATION_TIME: Duration = Duration::from_secs(30);

/// The messages that have come; see the module.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    hasher: DefaultHashBuilder,
    /// Hashes, which are their own hash: nothing is hashed twice.
    current: HashTable<u64>,
    previous: HashTable<u64>,
    began: Tick,
}

// === impl Repeats ===

impl Repeats {
    /// Notes a message; returns whether it has come before.
    pub(super) fn is_repeat(&mut self, target: Target<'_>, id: &str, now: Tick) -> bool {
        let hash = self.hasher.hash_one((target, id));
        let is_same = |known: &u64| *known == hash;
        if self.current.find(hash, is_same).is_some() {
            return true;
        }
        if self.current.len() >= GENERATION_MAX || now.since(self.began) >= GENERATION_TIME {
            self.turn_over(now);
        }
        // One that comes again is remembered for longer, as it may come once more.
        self.current.insert_unique(hash, hash, |known| *known);
        self.previous.find(hash, is_same).is_some()
    }

    fn turn_over(&mut self, now: Tick) {
        std::mem::swap(&mut self.current, &mut self.previous);
        // After more than a generation's time without messages, both are old.
        if now.since(self.began) >= 2 * GENERATION_TIME {
            self.previous.clear();
        }
        self.current.clear();
        self.began = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATION_TICKS: u32 = 300;

    #[test]
    fn a_message_that_comes_again_is_a_repeat() {
        let mut repeats = Repeats::default();
        let now = Tick(7);
        assert!(!repeats.is_repeat(Target::Room("a"), "1", now));
        assert!(repeats.is_repeat(Target::Room("a"), "1", now));
        assert!(!repeats.is_repeat(Target::Room("a"), "2", now));
        for other in [Target::Room("b"), Target::User("a"), Target::Client("a"), Target::Broadcast]
        {
            assert!(!repeats.is_repeat(other, "1", now), "{other:?} is another message");
        }
        assert!(!repeats.is_repeat(Target::Room("a1"), "", now));
        assert!(repeats.is_repeat(Target::Room("a"), "1", now));
    }

    #[test]
    fn a_message_is_known_for_a_generation_and_not_for_ever() {
        let mut repeats = Repeats::default();
        assert!(!repeats.is_repeat(Target::Broadcast, "1", Tick(0)));
        assert!(!repeats.is_repeat(Target::Broadcast, "other", Tick(GENERATION_TICKS)));
        assert!(!repeats.is_repeat(Target::Broadcast, "2", Tick(2 * GENERATION_TICKS - 1)));
        assert!(repeats.is_repeat(Target::Broadcast, "2", Tick(3 * GENERATION_TICKS - 2)));
        assert!(!repeats.is_repeat(Target::Broadcast, "1", Tick(3 * GENERATION_TICKS)));
        // Nothing came for long.
        assert!(!repeats.is_repeat(Target::Broadcast, "2", Tick(9 * GENERATION_TICKS)));
    }

    #[test]
    fn the_ids_are_bounded() {
        let mut repeats = Repeats::default();
        let now = Tick(0);
        for index in 0..3 * GENERATION_MAX {
            assert!(!repeats.is_repeat(Target::Broadcast, &index.to_string(), now));
            assert!(repeats.current.len() + repeats.previous.len() <= 2 * GENERATION_MAX);
        }
        let recent = 3 * GENERATION_MAX - 1;
        assert!(repeats.is_repeat(Target::Broadcast, &recent.to_string(), now));
        assert!(repeats.is_repeat(
            Target::Broadcast,
            &(recent - GENERATION_MAX + 1).to_string(),
            now
        ));
        assert!(!repeats.is_repeat(Target::Broadcast, "0", now), "it is forgotten by then");
    }
}
