//! Links that follow a topology: where channels are, what is kept and what is let go.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::bus::redis::subscriptions::Outcome;
use crate::bus::redis::topology::View;
use crate::worker::hub::GroupKey;
use signal_core::channel::{ChannelNames, TAGS, slot};

const PORTS: [u16; 3] = [7000, 7001, 7002];

fn links(sharded: bool) -> Links {
    let names = WireNames::new(ChannelNames::default(), "signal-1", 0, sharded);
    Links::new(names, 0, Arc::new(LinkStatuses::new(1)))
}

/// A cluster in which `owner` says which port has a partition, at this epoch.
fn topology(before: &Topology, epoch: u64, owner: impl Fn(u8) -> u16) -> Topology {
    let mut text = String::new();
    for port in PORTS {
        write!(text, "id{port} 127.0.0.1:{port}@1 master - 0 0 {epoch} connected").unwrap();
        for partition in (0..=u8::MAX).filter(|partition| owner(*partition) == port) {
            write!(text, " {}", slot(TAGS[usize::from(partition)])).unwrap();
        }
        text.push('\n');
    }
    let asked = Node { host: "127.0.0.1".to_owned(), port: PORTS[0] };
    let mut topology = before.clone();
    topology.merge(&View::parse(&text, &asked).unwrap());
    topology
}

fn thirds(partition: u8) -> u16 {
    PORTS[usize::from(partition) * 3 / 256]
}

fn key(index: usize) -> ChannelKey {
    ChannelKey::Group(GroupKey::room(&index.to_string()))
}

/// Redis answers everything that a link asks.
fn answer(links: &mut Links, link: LinkId) {
    while let Some(command) = links.table(link).next_command() {
        for key in command.keys {
            links.table(link).answered(command.subscribe, |named| *named == key);
            if command.subscribe {
                links.confirmed(link, &key);
            }
        }
    }
    links.note_state(link);
}

fn open_all(links: &mut Links, applied: &Applied) {
    for (link, _) in &applied.opened {
        links.table(*link).connected();
        answer(links, *link);
    }
}

fn link_of(links: &Links, port: u16) -> LinkId {
    let found = links
        .open
        .iter()
        .find(|(_, link)| link.node.as_ref().is_some_and(|node| node.port == port));
    found.unwrap().0
}

#[test]
fn everything_waits_nowhere_until_there_is_a_topology() {
    let mut links = links(true);
    assert!(!links.want(key(1)));
    assert!(!links.statuses.are_delivering());
    assert_eq!(links.counts(), (1, 0));
    let applied = links.apply(&topology(&Topology::unknown(), 1, thirds));
    assert_eq!(applied.opened.len(), 3);
    assert_eq!(applied.moved, [], "it was nowhere, so nothing was missed");
    open_all(&mut links, &applied);
    assert!(links.want(key(1)));
    assert!(links.statuses.are_delivering());
    // The channel and a probe for each node, and nothing is left of the link to nowhere.
    assert_eq!(links.counts(), (4, 4));
    assert_eq!(links.statuses.get().len(), 3);
}

#[test]
fn a_slot_that_moves_is_kept_by_its_old_node_until_the_new_one_has_it() {
    let mut links = links(true);
    let before = topology(&Topology::unknown(), 1, thirds);
    let applied = links.apply(&before);
    open_all(&mut links, &applied);
    for index in 0..300 {
        links.want(key(index));
    }
    for port in PORTS {
        let link = link_of(&links, port);
        answer(&mut links, link);
    }
    let all_on_the_first = topology(&before, 2, |_| PORTS[0]);
    let moved = links.apply(&all_on_the_first).moved;
    assert!((150..250).contains(&moved.len()), "{} channels moved", moved.len());
    let (first, second) = (link_of(&links, PORTS[0]), link_of(&links, PORTS[1]));
    let of_second = links.table(second).counts().1;
    assert!(of_second > 50, "the old node still has its {of_second}");
    assert!(!links.statuses.are_delivering(), "the new one has not confirmed its own");
    // One that is given up meanwhile is given up at both.
    links.unwant(&moved[0]);
    answer(&mut links, first);
    answer(&mut links, second);
    links.close_idle();
    assert_eq!(links.statuses.get().len(), 1, "the old links have nothing left to do");
    assert_eq!(links.counts(), (299 + 1, 299 + 1));
    assert!(links.kept.is_empty());
}

#[test]
fn a_slot_that_moves_back_at_once_was_never_gone() {
    let mut links = links(true);
    let before = topology(&Topology::unknown(), 1, thirds);
    let applied = links.apply(&before);
    open_all(&mut links, &applied);
    for index in 0..300 {
        links.want(key(index));
    }
    for port in PORTS {
        let link = link_of(&links, port);
        answer(&mut links, link);
    }
    let away = topology(&before, 2, |_| PORTS[0]);
    links.apply(&away);
    links.apply(&topology(&away, 3, thirds));
    assert!((0..300).all(|index| links.want(key(index))));
    for port in PORTS {
        let link = link_of(&links, port);
        answer(&mut links, link);
    }
    assert_eq!(links.counts(), (303, 303));
    assert!(links.kept.is_empty() && links.statuses.are_delivering());
}

#[test]
fn a_dead_master_keeps_nothing() {
    let mut links = links(true);
    let before = topology(&Topology::unknown(), 1, thirds);
    let applied = links.apply(&before);
    open_all(&mut links, &applied);
    for index in 0..300 {
        links.want(key(index));
    }
    for port in PORTS {
        let link = link_of(&links, port);
        answer(&mut links, link);
    }
    let dead = link_of(&links, PORTS[2]);
    links.lost(dead);
    assert!(!links.statuses.are_delivering());
    let after = topology(&before, 2, |partition| thirds(partition).min(PORTS[1]));
    let moved = links.apply(&after).moved;
    assert!(moved.len() > 50, "all that was missed is announced: {}", moved.len());
    assert_eq!(links.statuses.get().len(), 2);
    for port in &PORTS[..2] {
        let link = link_of(&links, *port);
        answer(&mut links, link);
    }
    assert_eq!(links.counts(), (302, 302));
    assert!(links.statuses.are_delivering());
}

#[test]
fn what_a_node_brings_after_the_next_has_confirmed_counts_for_nothing() {
    let mut links = links(true);
    let before = topology(&Topology::unknown(), 1, thirds);
    let applied = links.apply(&before);
    open_all(&mut links, &applied);
    let from = link_of(&links, PORTS[2]);
    let index = (0..1000).find(|index| links.carrier(&key(*index)) == from).unwrap();
    let (moves, name) = (key(index), format!("ws:room:{index}"));
    links.want(moves.clone());
    answer(&mut links, from);
    assert!(!links.has_let_go(from, name.as_bytes()));
    links.apply(&topology(&before, 2, |partition| thirds(partition).min(PORTS[1])));
    let to = links.carrier(&moves);
    assert_ne!(to, from);
    assert!(!links.has_let_go(from, name.as_bytes()), "it keeps the channel for now");
    answer(&mut links, to);
    assert!(links.table(to).is_confirmed(&moves));
    assert!(links.has_let_go(from, name.as_bytes()));
    assert!(!links.has_let_go(to, name.as_bytes()));
    answer(&mut links, from);
    assert!(!links.has_let_go(from, name.as_bytes()), "nothing comes any more");
}

#[test]
fn slots_without_an_owner_wait_and_are_not_well() {
    let mut links = links(true);
    let before = topology(&Topology::unknown(), 1, thirds);
    let applied = links.apply(&before);
    open_all(&mut links, &applied);
    links.want(key(0));
    let holed = topology(&before, 2, |_| 0);
    links.apply(&holed);
    assert!(!links.want(key(0)));
    assert!(!links.statuses.are_delivering());
    let names: Vec<_> = links
        .statuses
        .get()
        .iter()
        .filter_map(|link| link.problem(Duration::ZERO, Duration::MAX))
        .collect();
    assert!(names.iter().any(|problem| problem.contains("no master")), "{names:?}");
}

#[test]
fn classic_pub_sub_has_one_link_to_a_master_that_answers() {
    let mut links = links(false);
    let all = topology(&Topology::unknown(), 1, thirds);
    let applied = links.apply(&all);
    assert_eq!(applied.opened.len(), 1);
    open_all(&mut links, &applied);
    links.want(key(0));
    let link = applied.opened[0].0;
    answer(&mut links, link);
    assert_eq!(links.apply(&all).opened, [], "it stays where it is");
    let mut without = Topology::unknown();
    let asked = Node { host: "127.0.0.1".to_owned(), port: PORTS[1] };
    let view = format!("a 127.0.0.1:{}@1 myself,master - 0 0 3 connected 0-16383", PORTS[1]);
    without.merge(&View::parse(&view, &asked).unwrap());
    let applied = links.apply(&without);
    assert_eq!(applied.opened.len(), 1);
    assert_eq!(applied.moved, [key(0)]);
    assert_eq!(links.statuses.get().len(), 1, "both at once would deliver twice");
    open_all(&mut links, &applied);
    assert_eq!(links.counts(), (2, 2));
}

#[derive(Clone, Debug)]
enum Step {
    Want(usize),
    Unwant(usize),
    /// A node answers the oldest command that its link sent.
    Answer(usize),
    /// This third of the partitions belongs to this node from now on.
    Move(u8, usize),
    Lose(usize),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..12).prop_map(Step::Want),
        6 => (0_usize..12).prop_map(Step::Unwant),
        8 => (0_usize..3).prop_map(Step::Answer),
        2 => (0_u8..3, 0_usize..3).prop_map(|(third, node)| Step::Move(third, node)),
        1 => (0_usize..3).prop_map(Step::Lose),
        1 => Just(Step::Sweep),
    ]
}

/// The nodes, as far as the links of one worker see them.
#[derive(Default)]
struct Nodes {
    /// By link: what is subscribed over its connection.
    subscribed: HashMap<LinkId, Vec<ChannelKey>>,
}

impl Nodes {
    /// Opens what is to be opened, forgets what has been closed.
    fn follow(&mut self, links: &mut Links, applied: Applied) {
        self.subscribed.retain(|link, _| links.open.contains(*link));
        for (link, _) in applied.opened {
            // The place may have been another link's, which was closed in the same step.
            self.subscribed.insert(link, Vec::new());
            links.table(link).connected();
        }
    }

    /// One command, if there is any.
    fn answer(&mut self, links: &mut Links, link: LinkId) -> bool {
        let command = links.table(link).next_command();
        links.note_state(link);
        let Some(command) = command else { return false };
        let subscribed = self.subscribed.get_mut(&link).expect("it is open");
        for key in command.keys {
            subscribed.retain(|other| *other != key);
            if command.subscribe {
                subscribed.push(key.clone());
            }
            let outcome = links.table(link).answered(command.subscribe, |named| *named == key);
            if outcome == Outcome::Confirmed(key.clone()) {
                links.confirmed(link, &key);
            }
        }
        links.note_state(link);
        true
    }
}

proptest! {
    #[test]
    fn in_the_end_each_channel_is_at_its_owner_once_and_nowhere_else(
        steps in proptest::collection::vec(step(), 0..150),
        sharded in any::<bool>(),
    ) {
        let mut links = links(sharded);
        let mut nodes = Nodes::default();
        let mut owners = [PORTS[0], PORTS[1], PORTS[2]];
        let by_third = |owners: [u16; 3]| move |partition: u8| owners[usize::from(partition) * 3 / 256];
        let mut epoch = 1;
        let mut current = topology(&Topology::unknown(), epoch, by_third(owners));
        let applied = links.apply(&current);
        nodes.follow(&mut links, applied);
        let mut wanted = std::collections::BTreeSet::new();
        let find = |links: &Links, node: usize| links.open.iter()
            .find(|(_, link)| link.node.as_ref().is_some_and(|known| known.port == PORTS[node]))
            .map(|(id, _)| id);
        for step in steps {
            match step {
                Step::Want(index) => {
                    wanted.insert(index);
                    if links.want(key(index)) {
                        let carrier = links.carrier(&key(index));
                        prop_assert!(nodes.subscribed[&carrier].contains(&key(index)));
                    }
                }
                Step::Unwant(index) => {
                    wanted.remove(&index);
                    links.unwant(&key(index));
                }
                Step::Answer(node) => {
                    if let Some(link) = find(&links, node) {
                        nodes.answer(&mut links, link);
                    }
                }
                Step::Move(third, node) => {
                    owners[usize::from(third)] = PORTS[node];
                    epoch += 1;
                    current = topology(&current, epoch, by_third(owners));
                    let applied = links.apply(&current);
                    nodes.follow(&mut links, applied);
                }
                Step::Lose(node) => {
                    if let Some(link) = find(&links, node) {
                        links.lost(link);
                        nodes.subscribed.insert(link, Vec::new());
                        links.table(link).connected();
                    }
                }
                Step::Sweep => links.close_idle(),
            }
            nodes.subscribed.retain(|link, _| links.open.contains(*link));
        }
        let mut more = true;
        while more {
            more = false;
            for node in 0..3 {
                if let Some(link) = find(&links, node) {
                    more |= nodes.answer(&mut links, link);
                }
            }
        }
        links.close_idle();
        nodes.subscribed.retain(|link, _| links.open.contains(*link));
        prop_assert!(links.kept.is_empty());
        prop_assert!(links.statuses.are_delivering());
        for index in 0..12 {
            let key = key(index);
            let at: Vec<_> = nodes.subscribed.iter()
                .filter(|(_, subscribed)| subscribed.contains(&key))
                .map(|(link, _)| *link)
                .collect();
            let expected: Vec<_> =
                wanted.contains(&index).then(|| links.carrier(&key)).into_iter().collect();
            prop_assert_eq!(at, expected, "channel {}", index);
        }
        let probes = links.open.len();
        prop_assert_eq!(links.counts(), (wanted.len() + probes, wanted.len() + probes));
    }
}
