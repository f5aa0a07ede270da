//! The channels that one link wants, and what Redis has confirmed: a pure state machine.
//!
//! It owns both sets, the changes not yet sent and the commands under way; it never does IO. Redis
//! answers commands in their order and each channel of a command apart, so an answer is matched to the
//! oldest command under way, and what is confirmed is what Redis said, never what was asked for. A
//! command names channels of one partition only, which in a cluster is one slot. One that is refused
//! says nothing of its channels one by one: they are tried alone, and those refused alone are kept
//! apart, visible, and tried again later; where the refusal is about the state of the cluster, all of
//! them wait for that to change. A lost connection forgets what was confirmed and wants everything
//! anew. Sizes are bounded by the channels wanted; a command holds at most [`SUBSCRIBE_BATCH_MAX`].

use std::collections::VecDeque;
use std::task::Waker;

use hashbrown::HashMap;
use signal_core::limits::SUBSCRIBE_BATCH_MAX;

use crate::bus::{ChannelKey, LinkState};

/// Commands under way, beyond which changes wait.
const COMMANDS_MAX: usize = 64;

/// What a link's connection is to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionCommand {
    /// Else the end of a subscription.
    pub(crate) subscribe: bool,
    /// The partition of all the channels.
    pub(crate) partition: u8,
    pub(crate) keys: Vec<ChannelKey>,
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The probe's PUBLISH was taken or refused; either way the connection lives.
    Probed,
    /// This channel is confirmed now.
    Confirmed(ChannelKey),
    /// Noted; nobody has to be told.
    Noted,
    /// Redis refuses this channel.
    Refused(ChannelKey),
    /// It answers nothing that was asked: the stream is out of step and has to be rebuilt.
    Unexpected,
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The channels, or some of them.
    Channels,
    /// The state of the server or of the cluster, which will change.
    State,
}

/// The table; see the module.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    channels: HashMap<ChannelKey, Channel>,
    confirmed: usize,
    /// Channels that are not confirmed because Redis refuses them alone.
    denied: usize,
    changed: Changed,
    /// To be sent alone, since a command that held them was refused.
    suspects: VecDeque<ChannelKey>,
    /// Refused alone; tried again at the next probe. May name channels that have gone since.
    refused: Vec<ChannelKey>,
    /// Refused for the state of the server; tried again when that may have changed.
    postponed: Vec<ChannelKey>,
    under_way: VecDeque<UnderWay>,
    connected: bool,
    waker: Option<Waker>,
}

/// Channels whose wanted state may differ from what was sent, by partition.
#[derive(Debug, Default)]
struct Changed {
    partitions: HashMap<u8, VecDeque<ChannelKey>>,
    /// Partitions that have some, each once, in the order in which they are sent.
    turns: VecDeque<u8>,
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a channel")]
struct Channel {
    partition: u8,
    wanted: bool,
    /// The last command sent for it was a subscribe.
    sent: bool,
    confirmed: bool,
    /// Redis refused it alone, and has not confirmed it since.
    denied: bool,
    /// Stands in `changed` or `suspects`.
    queued: bool,
    /// Commands under way that name it.
    under_way: u16,
}

#[derive(Debug)]
struct UnderWay {
    kind: CommandKind,
    /// Channels not answered yet; none for a probe.
    keys: VecDeque<ChannelKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandKind {
    Subscribe,
    Unsubscribe,
    Probe,
}

// === impl Changed ===

impl Changed {
    fn push(&mut self, partition: u8, key: ChannelKey) {
        let keys = self.partitions.entry(partition).or_default();
        if keys.is_empty() {
            self.turns.push_back(partition);
        }
        keys.push_back(key);
    }

    /// The channels of the partition whose turn it is; [`Changed::end_turn`] has to follow.
    fn turn(&mut self) -> Option<(u8, &mut VecDeque<ChannelKey>)> {
        let partition = *self.turns.front()?;
        Some((partition, self.partitions.get_mut(&partition).expect("it has a turn")))
    }

    /// It is the next partition's turn.
    fn end_turn(&mut self) {
        let partition = self.turns.pop_front().expect("there was a turn");
        if self.partitions[&partition].is_empty() {
            self.partitions.remove(&partition);
        } else {
            self.turns.push_back(partition);
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

// === impl Subscriptions ===

impl Subscriptions {
    /// Wants a channel; returns whether it is confirmed already.
    pub(crate) fn want(&mut self, key: ChannelKey, partition: u8) -> bool {
        let channel = self.channels.entry(key.clone()).or_default();
        channel.partition = partition;
        channel.wanted = true;
        if channel.confirmed {
            return true;
        }
        if channel.sent && channel.under_way == 0 {
            // Given up and wanted again before Redis was told: the subscription stands.
            channel.confirmed = true;
            self.confirmed += 1;
            return true;
        }
        self.note_change(key);
        false
    }

    /// Wants a channel no more.
    pub(crate) fn unwant(&mut self, key: &ChannelKey) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        channel.wanted = false;
        channel.allow(&mut self.denied);
        if channel.confirmed {
            // From now on a new want has to wait for a new confirmation.
            channel.confirmed = false;
            self.confirmed -= 1;
        }
        self.note_change(key.clone());
    }

    /// Whether a channel is on its way out.
    pub(crate) fn has_let_go(&self, key: &ChannelKey) -> bool {
        self.channels.get(key).is_some_and(|channel| !channel.wanted)
    }

    /// Whether Redis has confirmed a channel.
    pub(crate) fn is_confirmed(&self, key: &ChannelKey) -> bool {
        self.channels.get(key).is_some_and(|channel| channel.confirmed)
    }

    /// The wanted channels of the partitions chosen.
    pub(crate) fn wanted(
        &self,
        is_chosen: impl Fn(u8) -> bool,
    ) -> impl Iterator<Item = (&ChannelKey, u8)> {
        self.channels
            .iter()
            .filter(move |(_, channel)| channel.wanted && is_chosen(channel.partition))
            .map(|(key, channel)| (key, channel.partition))
    }

    /// Channels wanted (those on their way out included) and confirmed.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.channels.len(), self.confirmed)
    }

    /// Where the link stands: confirmed once everything wanted is, and nothing is on its way out.
    pub(crate) fn state(&self) -> LinkState {
        match self.connected {
            false => LinkState::Down,
            true if self.confirmed == self.channels.len() => LinkState::Confirmed,
            true => LinkState::Unconfirmed,
        }
    }

    /// Whether all arrives that Redis lets anybody have.
    pub(crate) fn is_delivering(&self) -> bool {
        self.connected && self.confirmed + self.denied == self.channels.len()
    }

    /// Whether everything is confirmed.
    #[cfg(test)]
    fn is_settled(&self) -> bool {
        self.state() == LinkState::Confirmed
    }

    /// Channels that Redis refuses.
    #[cfg(test)]
    fn refused(&self) -> &[ChannelKey] {
        &self.refused
    }

    /// The waker of the task that sends.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// A new connection: everything wanted has to be asked for.
    pub(crate) fn connected(&mut self) {
        self.disconnected();
        self.connected = true;
        for (key, channel) in &mut self.channels {
            channel.queued = true;
            self.changed.push(channel.partition, key.clone());
        }
    }

    /// The connection is gone, and what was confirmed with it.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.confirmed = 0;
        self.denied = 0;
        self.under_way.clear();
        self.changed.clear();
        self.suspects.clear();
        self.refused.clear();
        self.postponed.clear();
        self.channels.retain(|_, channel| channel.wanted);
        for channel in self.channels.values_mut() {
            let partition = channel.partition;
            *channel = Channel { partition, wanted: true, ..Channel::default() };
        }
    }

    /// Tries the channels again that were refused alone.
    pub(crate) fn retry_refused(&mut self) {
        for key in std::mem::take(&mut self.refused) {
            if let Some(channel) = self.channels.get_mut(&key)
                && channel.wanted
                && !channel.queued
            {
                channel.queued = true;
                self.suspects.push_back(key);
            }
        }
        self.wake();
    }

    /// Tries the channels again that waited for the server's state to change.
    pub(crate) fn retry_postponed(&mut self) {
        for key in std::mem::take(&mut self.postponed) {
            if self.channels.get(&key).is_some_and(|channel| channel.wanted && !channel.sent) {
                self.note_change(key);
            }
        }
    }

    /// The next command to send, if any.
    pub(crate) fn next_command(&mut self) -> Option<SubscriptionCommand> {
        if !self.connected || self.under_way.len() >= COMMANDS_MAX {
            return None;
        }
        while let Some(key) = self.suspects.pop_front() {
            let channel = self.channels.get_mut(&key).expect("a queued channel is in the table");
            channel.queued = false;
            if channel.wanted == channel.sent {
                self.drop_if_done(&key);
                continue;
            }
            let (subscribe, partition) = (channel.wanted, channel.partition);
            channel.send();
            return Some(self.under_way(subscribe, partition, vec![key]));
        }
        while let Some((partition, queue)) = self.changed.turn() {
            let (mut subscribe, mut keys, mut done) = (true, Vec::new(), Vec::new());
            while let Some(key) = queue.front() {
                let channel = self.channels.get_mut(key).expect("a queued channel is in the table");
                if channel.wanted == channel.sent {
                    // Changed back before it was sent.
                    channel.queued = false;
                    done.extend(queue.pop_front());
                    continue;
                }
                if keys.is_empty() {
                    subscribe = channel.wanted;
                } else if channel.wanted != subscribe || keys.len() == SUBSCRIBE_BATCH_MAX {
                    break;
                }
                channel.queued = false;
                channel.send();
                keys.extend(queue.pop_front());
            }
            self.changed.end_turn();
            for key in &done {
                self.drop_if_done(key);
            }
            if !keys.is_empty() {
                return Some(self.under_way(subscribe, partition, keys));
            }
        }
        None
    }

    /// A probe was sent, whose reply has its place in the order.
    pub(crate) fn probe_sent(&mut self) {
        self.under_way.push_back(UnderWay { kind: CommandKind::Probe, keys: VecDeque::new() });
    }

    /// Redis answered with a plain reply, which only a probe gets.
    pub(crate) fn replied(&mut self) -> Outcome {
        match self.under_way.front() {
            Some(command) if command.kind == CommandKind::Probe => {
                self.under_way.pop_front();
                Outcome::Probed
            }
            _ => Outcome::Unexpected,
        }
    }

    /// Redis answered a (un)subscribe of one channel; `is_named` tells whether the answer names it.
    pub(crate) fn answered(
        &mut self,
        subscribe: bool,
        is_named: impl FnOnce(&ChannelKey) -> bool,
    ) -> Outcome {
        let Some(command) = self.under_way.front_mut() else { return Outcome::Unexpected };
        let kind = if subscribe { CommandKind::Subscribe } else { CommandKind::Unsubscribe };
        let matches = command.kind == kind && command.keys.front().is_some_and(is_named);
        if !matches {
            return Outcome::Unexpected;
        }
        let key = command.keys.pop_front().expect("the answer names it");
        if command.keys.is_empty() {
            self.under_way.pop_front();
        }
        let channel = self.channels.get_mut(&key).expect("a channel under way is in the table");
        channel.under_way -= 1;
        if channel.under_way == 0 && channel.sent && channel.wanted {
            channel.allow(&mut self.denied);
            channel.confirmed = true;
            self.confirmed += 1;
            return Outcome::Confirmed(key);
        }
        self.drop_if_done(&key);
        Outcome::Noted
    }

    /// Redis ended a subscription by itself, since the channel's slot has moved; returns whether it
    /// was one that anybody wants. It is not asked for again at once: a master that has become a replica
    /// would take it, and hand on what its new master hands on too.
    pub(crate) fn taken_away(&mut self, key: &ChannelKey) -> bool {
        let Some(channel) = self.channels.get_mut(key) else { return false };
        if channel.under_way > 0 {
            // The answer to what is under way says how it stands now.
            return channel.wanted;
        }
        channel.sent = false;
        if channel.confirmed {
            channel.confirmed = false;
            self.confirmed -= 1;
        }
        let wanted = channel.wanted;
        match wanted {
            true if !channel.queued => self.postponed.push(key.clone()),
            true => {}
            false => self.drop_if_done(key),
        }
        wanted
    }

    /// Redis refused the oldest command. For its channels: a lone one is refused, several are tried
    /// one by one. For its state: all wait for that to change.
    pub(crate) fn refuse(&mut self, refusal: Refusal) -> Outcome {
        let Some(command) = self.under_way.pop_front() else { return Outcome::Unexpected };
        if command.kind == CommandKind::Probe {
            return Outcome::Probed;
        }
        let lone = command.keys.len() == 1;
        let mut outcome = Outcome::Noted;
        for key in command.keys {
            let channel = self.channels.get_mut(&key).expect("a channel under way is in the table");
            channel.under_way -= 1;
            if channel.under_way > 0 {
                // A later command for it is under way, and says what Redis will know.
                continue;
            }
            channel.sent = false;
            if !channel.wanted || command.kind == CommandKind::Unsubscribe {
                self.drop_if_done(&key);
            } else if refusal == Refusal::State {
                self.postponed.push(key);
            } else if lone {
                if !std::mem::replace(&mut channel.denied, true) {
                    self.denied += 1;
                }
                self.refused.push(key.clone());
                outcome = Outcome::Refused(key);
            } else if !channel.queued {
                channel.queued = true;
                self.suspects.push_back(key);
            }
        }
        outcome
    }

    fn under_way(
        &mut self,
        subscribe: bool,
        partition: u8,
        keys: Vec<ChannelKey>,
    ) -> SubscriptionCommand {
        let kind = if subscribe { CommandKind::Subscribe } else { CommandKind::Unsubscribe };
        self.under_way.push_back(UnderWay { kind, keys: keys.iter().cloned().collect() });
        SubscriptionCommand { subscribe, partition, keys }
    }

    fn note_change(&mut self, key: ChannelKey) {
        if !self.connected {
            // All that is wanted is asked for on connection; what is not may go at once.
            if !self.channels.get(&key).is_some_and(|channel| channel.wanted) {
                self.channels.remove(&key);
            }
            return;
        }
        let channel = self.channels.get_mut(&key).expect("called for channels in the table");
        if !channel.queued {
            channel.queued = true;
            self.changed.push(channel.partition, key);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// A channel that nobody wants and that Redis knows nothing of leaves the table.
    fn drop_if_done(&mut self, key: &ChannelKey) {
        if self.channels.get(key).is_some_and(|channel| {
            !channel.wanted && !channel.sent && channel.under_way == 0 && !channel.queued
        }) {
            self.channels.remove(key);
        }
    }
}

// === impl Channel ===

impl Channel {
    /// A command for what is wanted is under way.
    fn send(&mut self) {
        self.sent = self.wanted;
        self.under_way += 1;
    }

    /// It is not, or no longer, one that Redis refuses.
    fn allow(&mut self, denied: &mut usize) {
        if std::mem::take(&mut self.denied) {
            *denied -= 1;
        }
    }
}

#[cfg(test)]
#[path = "subscriptions_tests.rs"]
mod tests;
