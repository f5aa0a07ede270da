//! The messages of one lane: those under way, then those that wait.
//!
//! Pure: no time, no sending. Owns their order, which never changes: what has to be sent again goes
//! out before what was not sent yet. A message that is withdrawn gives its bytes back at once; its place
//! goes when it comes to the front. Whoever puts messages in bounds them by their [`Claim`]s.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};

use super::claim::Claim;
use crate::EmitterError;

/// What became of a message: the receivers, where they are known.
pub(super) type Outcome = Result<Option<u64>, EmitterError>;

/// A message of a lane.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) channel: String,
    pub(super) envelope: Bytes,
    /// What it holds of the allowance.
    pub(super) _claim: Claim,
}

/// What is sent, and until when.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) ticket: u64,
    pub(super) channel: String,
    pub(super) envelope: Bytes,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
struct Entry {
    /// `None` once it is answered or withdrawn.
    message: Option<Message>,
    outcome: Option<oneshot::Sender<Outcome>>,
    deadline: Instant,
    /// It was under way when its connection broke: Redis may have it.
    uncertain: bool,
    redirections: u8,
    /// Held until the entry goes, so that entries are bounded too.
    _claim: Claim,
}

/// The queue; see the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    /// The ticket of the first entry.
    front: u64,
    /// So many entries, from the first, are under way or done.
    sent: usize,
}

// === impl Queue ===

impl Queue {
    /// Bytes of a place in the queue.
    pub(super) const ENTRY_BYTES: usize = size_of::<Entry>();

    /// Puts a message behind the others; returns its ticket, and where its outcome comes.
    pub(super) fn push(
        &mut self,
        message: Message,
        deadline: Instant,
        claim: Claim,
    ) -> (u64, oneshot::Receiver<Outcome>) {
        let (outcome, receiver) = oneshot::channel();
        let ticket = self.front + self.entries.len() as u64;
        self.entries.push_back(Entry {
            message: Some(message),
            outcome: Some(outcome),
            deadline,
            uncertain: false,
            redirections: 0,
            _claim: claim,
        });
        (ticket, receiver)
    }

    /// The next message to send; it stays the next one until [`Queue::started`].
    pub(super) fn next(&mut self) -> Option<Due> {
        while let Some(entry) = self.entries.get(self.sent) {
            if let Some(message) = &entry.message {
                return Some(Due {
                    ticket: self.front + self.sent as u64,
                    channel: message.channel.clone(),
                    envelope: message.envelope.clone(),
                    deadline: entry.deadline,
                });
            }
            self.sent += 1;
        }
        None
    }

    /// The next message is under way.
    pub(super) fn started(&mut self) {
        self.sent += 1;
        debug_assert!(self.sent <= self.entries.len(), "a message was there to be started");
    }

    /// A message has its outcome.
    pub(super) fn settle(&mut self, ticket: u64, outcome: Outcome) {
        if let Some(entry) = self.entry(ticket) {
            entry.message = None;
            if let Some(waiting) = entry.outcome.take() {
                // Whoever waited may have gone.
                let _ = waiting.send(outcome);
            }
        }
        self.forget_done();
    }

    /// A message goes out again: after its connection broke, or since Redis did nothing.
    pub(super) fn again(&mut self, ticket: u64, uncertain: bool) {
        if let Some(entry) = self.entry(ticket) {
            entry.uncertain |= uncertain;
        }
    }

    /// How often a message has been sent elsewhere by now, this time included.
    pub(super) fn redirected(&mut self, ticket: u64) -> u8 {
        self.entry(ticket).map_or(0, |entry| {
            entry.redirections = entry.redirections.saturating_add(1);
            entry.redirections
        })
    }

    /// Nothing is under way any more: what has no outcome waits again.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Takes a message out; returns whether Redis may have it.
    pub(super) fn withdraw(&mut self, ticket: u64) -> bool {
        let sent = self.front + self.sent as u64;
        let Some(entry) = self.entry(ticket) else { return true };
        entry.message = None;
        let uncertain = entry.uncertain || ticket < sent;
        self.forget_done();
        uncertain
    }

    /// The deadline of a message that is not under way has passed.
    pub(super) fn expire(&mut self, ticket: u64) {
        let uncertain = self.entry(ticket).is_some_and(|entry| entry.uncertain);
        let error = if uncertain { EmitterError::Timeout } else { EmitterError::Expired };
        self.settle(ticket, Err(error));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Ends every message.
    pub(super) fn end(&mut self) {
        for mut entry in self.entries.drain(..) {
            if let Some(waiting) = entry.outcome.take() {
                let _ = waiting.send(Err(EmitterError::ShutDown));
            }
            self.front += 1;
        }
        self.sent = 0;
    }

    fn entry(&mut self, ticket: u64) -> Option<&mut Entry> {
        let index = usize::try_from(ticket.checked_sub(self.front)?).ok()?;
        self.entries.get_mut(index)
    }

    fn forget_done(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.message.is_none()) {
            self.entries.pop_front();
            self.front += 1;
            self.sent = self.sent.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::claim::Allowance;

    fn push(queue: &mut Queue, name: &str) -> (u64, oneshot::Receiver<Outcome>) {
        let allowance = Allowance::new(100);
        let message = Message {
            channel: name.to_owned(),
            envelope: Bytes::new(),
            _claim: allowance.claim(1).unwrap(),
        };
        queue.push(message, Instant::now(), allowance.claim(1).unwrap())
    }

    fn start_all(queue: &mut Queue) -> Vec<String> {
        let mut started = Vec::new();
        while let Some(due) = queue.next() {
            started.push(due.channel);
            queue.started();
        }
        started
    }

    #[test]
    fn what_goes_out_again_goes_before_what_waits() {
        let mut queue = Queue::default();
        let (a, mut outcome) = push(&mut queue, "a");
        let (b, _b) = push(&mut queue, "b");
        let (c, _c) = push(&mut queue, "c");
        assert_eq!(start_all(&mut queue), ["a", "b", "c"]);
        push(&mut queue, "d");
        queue.settle(a, Ok(Some(1)));
        assert_eq!(outcome.try_recv().unwrap().unwrap(), Some(1));
        queue.again(b, true);
        // Answered although its elder was not: it is done all the same.
        queue.settle(c, Ok(Some(1)));
        queue.rewind();
        assert_eq!(start_all(&mut queue), ["b", "d"]);
        queue.settle(b, Ok(None));
        assert!(!queue.is_empty());
        assert_eq!(start_all(&mut queue), [""; 0]);
    }

    #[test]
    fn a_withdrawn_message_is_not_sent() {
        let mut queue = Queue::default();
        let (a, _a) = push(&mut queue, "a");
        let (b, _b) = push(&mut queue, "b");
        let (c, _c) = push(&mut queue, "c");
        assert!(!queue.withdraw(b));
        assert_eq!(queue.next().unwrap().ticket, a);
        queue.started();
        assert!(queue.withdraw(a), "it is under way");
        assert_eq!(start_all(&mut queue), ["c"]);
        // The outcome of what was withdrawn while under way reaches nobody.
        queue.settle(a, Ok(None));
        queue.settle(c, Ok(None));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_message_that_redis_may_have_is_uncertain_for_good() {
        let mut queue = Queue::default();
        let (a, _a) = push(&mut queue, "a");
        let (b, _b) = push(&mut queue, "b");
        start_all(&mut queue);
        queue.again(a, true);
        queue.again(b, false);
        queue.rewind();
        assert!(queue.withdraw(a));
        assert!(!queue.withdraw(b));
    }

    #[test]
    fn the_end_ends_all() {
        let mut queue = Queue::default();
        let (_, mut a) = push(&mut queue, "a");
        start_all(&mut queue);
        let (_, mut b) = push(&mut queue, "b");
        queue.end();
        for outcome in [&mut a, &mut b] {
            assert!(matches!(outcome.try_recv().unwrap(), Err(EmitterError::ShutDown)));
        }
        let (c, _c) = push(&mut queue, "c");
        assert_eq!((c, queue.next().unwrap().ticket), (2, 2));
    }
}
