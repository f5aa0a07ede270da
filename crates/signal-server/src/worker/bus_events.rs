//! What a worker's links tell it: channels confirmed, links up and down, nodes that change.
//!
//! Each event goes to those it concerns, here and on the workers that have members of a group which is
//! at home here: answers that wait for a channel, and the `resync` of those who may have missed
//! something. It owns nothing and decides nothing about Redis; the links do.

use super::hub::GroupKey;
use super::membership::Interest;
use super::resync::ResyncReason;
use super::{Command, State};
use crate::bus::redis::{LinkId, Topology, link};
use crate::bus::{ChannelKey, Link};

impl State {
    /// Which node carries what has changed, or what waits for that may try again.
    pub(crate) fn topology(&mut self, topology: &Topology) {
        let Link::Redis(links) = &mut self.link else { return };
        let applied = links.apply(topology);
        for (id, node) in applied.opened {
            if let Some(worker) = self.worker.upgrade() {
                let task = tokio::task::spawn_local(link::run(worker, id, node));
                links.set_task(id, task.abort_handle());
            }
        }
        for key in applied.moved {
            self.bus_interrupted(&key);
        }
    }

    /// The bus confirmed a channel on one of this worker's links.
    pub(crate) fn bus_confirmed(&mut self, link: LinkId, key: &ChannelKey) {
        let Link::Redis(links) = &mut self.link else { return };
        if !links.confirmed(link, key) {
            return;
        }
        if let ChannelKey::Group(group) = key
            && let Some(interest) = self.memberships.interests.get(group)
        {
            self.tell_remotes(group, interest, true);
        }
        self.confirmed(key);
    }

    /// Messages of a channel are missed until it is confirmed again, at another node.
    pub(crate) fn bus_interrupted(&mut self, key: &ChannelKey) {
        self.counters.bus_gaps += 1;
        match key {
            // No client can do anything about a revocation that its edge may have missed.
            ChannelKey::Revocations | ChannelKey::Probe(_) => {}
            ChannelKey::Broadcast => self.resync_all_workers(),
            ChannelKey::Client(client) | ChannelKey::OwnRoom(client) => {
                self.resync_client_later(*client);
            }
            ChannelKey::Group(group) => {
                if let Some(interest) = self.memberships.interests.get(group) {
                    self.tell_remotes(group, interest, false);
                    for worker in interest.remotes.iter() {
                        let lost = Command::Resync(Some(group.clone()), ResyncReason::Bus);
                        self.shared.queues[usize::from(worker)].control(lost);
                    }
                }
                self.resync_later(Some(group.clone()), ResyncReason::Bus);
            }
        }
    }

    /// A link is up, and knows nothing yet: whatever was published before is lost.
    pub(crate) fn bus_connected(&mut self, link: LinkId) {
        if let Link::Redis(links) = &mut self.link {
            links.table(link).connected();
            links.note_state(link);
        }
        self.counters.bus_connects += 1;
        self.resync_all_workers();
    }

    /// A link is down: nothing of it is confirmed until it is up again.
    pub(crate) fn bus_lost(&mut self, link: LinkId) {
        let Link::Redis(links) = &mut self.link else { return };
        links.lost(link);
        self.counters.bus_gaps += 1;
        let Link::Redis(links) = &self.link else { return };
        for (group, interest) in &self.memberships.interests {
            if !interest.remotes.is_empty()
                && links.carrier(&ChannelKey::Group(group.clone())) == link
            {
                self.tell_remotes(group, interest, false);
            }
        }
    }

    fn resync_all_workers(&self) {
        for queue in &self.shared.queues {
            queue.control(Command::Resync(None, ResyncReason::Bus));
        }
    }

    /// Tells the other workers that have members of a group whether the bus has confirmed it.
    fn tell_remotes(&self, group: &GroupKey, interest: &Interest, confirmed: bool) {
        for (worker, visit) in &interest.visits {
            let command = Command::Confirmed(group.clone(), interest.tenure, *visit, confirmed);
            self.shared.queues[usize::from(*worker)].control(command);
        }
    }
}
