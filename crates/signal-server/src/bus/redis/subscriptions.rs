//! Which channels a link wants and which Redis has confirmed, as a pure table driven by replies.
//!
//! It owns the wanted and the confirmed set of one connection and the commands under way, and decides
//! what to send next; it never does IO and never assumes that a command worked. Redis answers in
//! order, so a reply belongs to the oldest command under way, and a channel is confirmed only when the
//! last command for it was a subscribe and has been answered. A command that is refused (an ACL, for
//! one) is split: its channels are tried one by one, and those refused alone are kept apart, visible,
//! and tried again later. A lost connection forgets what was confirmed and wants everything anew.
//! Sizes are bounded by the channels wanted; a command holds at most [`COMMAND_CHANNELS_MAX`].

use std::collections::VecDeque;
use std::task::Waker;

use hashbrown::HashMap;

use crate::bus::ChannelKey;

/// Channels in one command.
pub(crate) const COMMAND_CHANNELS_MAX: usize = 512;

/// Commands under way, beyond which changes wait.
const COMMANDS_MAX: usize = 64;

/// What a link's connection is to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SubscriptionCommand {
    /// SUBSCRIBE.
    Subscribe(Vec<ChannelKey>),
    /// UNSUBSCRIBE.
    Unsubscribe(Vec<ChannelKey>),
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

/// The table; see the module.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    channels: HashMap<ChannelKey, Channel>,
    confirmed: usize,
    /// Channels whose wanted state may differ from what was sent.
    changed: VecDeque<ChannelKey>,
    /// To be sent alone, since a command that held them was refused.
    suspects: VecDeque<ChannelKey>,
    /// Refused alone; tried again at the next probe.
    refused: Vec<ChannelKey>,
    under_way: VecDeque<UnderWay>,
    connected: bool,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts about a channel")]
struct Channel {
    wanted: bool,
    /// The last command sent for it was a subscribe.
    sent: bool,
    confirmed: bool,
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

// === impl Subscriptions ===

impl Subscriptions {
    /// Wants a channel; returns whether it is confirmed already.
    pub(crate) fn want(&mut self, key: ChannelKey) -> bool {
        let channel = self.channels.entry(key.clone()).or_default();
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
        if channel.confirmed {
            // From now on a new want has to wait for a new confirmation.
            channel.confirmed = false;
            self.confirmed -= 1;
        }
        self.note_change(key.clone());
    }

    /// Channels wanted (those on their way out included) and confirmed.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.channels.len(), self.confirmed)
    }

    /// Whether everything wanted is confirmed and nothing is on its way out.
    pub(crate) fn is_settled(&self) -> bool {
        self.connected && self.confirmed == self.channels.len()
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
            self.changed.push_back(key.clone());
        }
    }

    /// The connection is gone, and what was confirmed with it.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.confirmed = 0;
        self.under_way.clear();
        self.changed.clear();
        self.suspects.clear();
        self.refused.clear();
        self.channels.retain(|_, channel| channel.wanted);
        for channel in self.channels.values_mut() {
            *channel = Channel { wanted: true, ..Channel::default() };
        }
    }

    /// Tries the refused channels again.
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
    }

    /// The next command to send, if any.
    pub(crate) fn next_command(&mut self) -> Option<SubscriptionCommand> {
        if !self.connected || self.under_way.len() >= COMMANDS_MAX {
            return None;
        }
        let alone = !self.suspects.is_empty();
        let (mut subscribe, mut keys) = (true, Vec::new());
        loop {
            let queue = if alone { &mut self.suspects } else { &mut self.changed };
            let Some(key) = queue.front() else { break };
            let channel = self.channels.get_mut(key).expect("a queued channel is in the table");
            if channel.wanted == channel.sent {
                // Changed back before it was sent.
                channel.queued = false;
                let key = queue.pop_front().expect("there is a front");
                self.drop_if_done(&key);
                continue;
            }
            if keys.is_empty() {
                subscribe = channel.wanted;
            } else if channel.wanted != subscribe {
                break;
            }
            channel.queued = false;
            channel.sent = channel.wanted;
            channel.under_way += 1;
            keys.extend(queue.pop_front());
            if alone || keys.len() == COMMAND_CHANNELS_MAX {
                break;
            }
        }
        if keys.is_empty() {
            // The suspects may all have changed back, with other changes waiting behind them.
            return if alone { self.next_command() } else { None };
        }
        let kind = if subscribe { CommandKind::Subscribe } else { CommandKind::Unsubscribe };
        self.under_way.push_back(UnderWay { kind, keys: keys.iter().cloned().collect() });
        Some(match subscribe {
            true => SubscriptionCommand::Subscribe(keys),
            false => SubscriptionCommand::Unsubscribe(keys),
        })
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
            channel.confirmed = true;
            self.confirmed += 1;
            return Outcome::Confirmed(key);
        }
        self.drop_if_done(&key);
        Outcome::Noted
    }

    /// Redis refused the oldest command: a lone channel is refused, several are tried one by one.
    pub(crate) fn refuse(&mut self) -> Outcome {
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
            } else if lone {
                self.refused.push(key.clone());
                outcome = Outcome::Refused(key);
            } else if !channel.queued {
                channel.queued = true;
                self.suspects.push_back(key);
            }
        }
        outcome
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
            self.changed.push_back(key);
            if let Some(waker) = &self.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// A channel that nobody wants and that Redis knows nothing of leaves the table.
    fn drop_if_done(&mut self, key: &ChannelKey) {
        if self.channels.get(key).is_some_and(|channel| {
            !channel.wanted && !channel.sent && channel.under_way == 0 && !channel.queued
        }) {
            self.channels.remove(key);
            self.refused.retain(|refused| refused != key);
        }
    }
}

#[cfg(test)]
#[path = "subscriptions_tests.rs"]
mod tests;
