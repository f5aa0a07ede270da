//! Links that follow a topology: where channels are, what is kept and what is let go.

use std::fmt::Write as _;

use super::*;
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
