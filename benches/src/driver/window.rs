//! How many messages are under way, for the saturated rows.
//!
//! Pure. A message is under way from its publication until its last recipient has it. Bounded by
//! the window's size.

use std::collections::VecDeque;

/// How many clients a message is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Recipients {
    /// So many, of several groups: that many arrivals end a message, whichever they are.
    Some(usize),
    /// So many: messages are told apart by their numbers.
    All(usize),
}

/// A window of messages under way to one audience.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    recipients: Recipients,
    /// Number of the oldest message under way.
    oldest: u64,
    /// Recipients that each message still lacks, the oldest first.
    remaining: VecDeque<usize>,
    /// Arrivals that have not ended a message yet.
    arrived: usize,
}

// === impl Window ===

impl Window {
    /// A window of `size` messages.
    pub(super) fn new(size: usize, recipients: Recipients) -> Self {
        Self { size, recipients, oldest: 0, remaining: VecDeque::with_capacity(size), arrived: 0 }
    }

    /// How many messages may be published now.
    pub(super) fn free(&self) -> usize {
        self.size - self.remaining.len()
    }

    /// Takes note of a publication. The caller has asked [`Window::free`].
    pub(super) fn published(&mut self) {
        debug_assert!(self.free() > 0, "the window is full");
        self.remaining.push_back(match self.recipients {
            Recipients::Some(count) | Recipients::All(count) => count,
        });
    }

    /// Takes note that one recipient has message `number`.
    pub(super) fn delivered(&mut self, number: u64) {
        if let Recipients::Some(count) = self.recipients {
            self.arrived += 1;
            if self.arrived == count {
                self.arrived = 0;
                self.remaining.pop_front();
            }
            return;
        }
        let Some(place) = number.checked_sub(self.oldest) else { return };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if let Some(remaining) = self.remaining.get_mut(place) {
            *remaining = remaining.saturating_sub(1);
        }
        while self.remaining.front() == Some(&0) {
            self.remaining.pop_front();
            self.oldest += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_frees_its_place_when_the_last_recipient_has_it() {
        let mut window = Window::new(2, Recipients::All(2));
        window.published();
        window.published();
        assert_eq!(window.free(), 0);
        window.delivered(0);
        window.delivered(1);
        window.delivered(1);
        assert_eq!(window.free(), 0, "message 0 still lacks a recipient");
        window.delivered(0);
        assert_eq!(window.free(), 2);
        window.delivered(0);
        assert_eq!(window.free(), 2);
    }

    #[test]
    fn messages_of_groups_free_their_places_by_count() {
        for count in [1, 3] {
            let mut window = Window::new(2, Recipients::Some(count));
            window.published();
            window.published();
            (0..count).for_each(|_| window.delivered(0));
            assert_eq!(window.free(), 1);
            (0..count).for_each(|_| window.delivered(0));
            assert_eq!(window.free(), 2);
        }
    }
}
