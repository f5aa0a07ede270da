//! The hub against a model made of plain sets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Admit(u32),
    Join(u32, GroupKind, &'static str),
    Leave(u32, GroupKind, &'static str),
    Forget(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0_u32..6;
    let kind = prop_oneof![Just(GroupKind::Room), Just(GroupKind::User)];
    let name = prop_oneof![Just("a"), Just("b"), Just("c"), Just("")];
    prop_oneof![
        2 => slot.clone().prop_map(Step::Admit),
        5 => (slot.clone(), kind.clone(), name.clone()).prop_map(|(s, k, n)| Step::Join(s, k, n)),
        3 => (slot.clone(), kind, name).prop_map(|(s, k, n)| Step::Leave(s, k, n)),
        1 => slot.prop_map(Step::Forget),
    ]
}

#[derive(Default)]
struct Model {
    admitted: BTreeSet<Slot>,
    groups: BTreeMap<(GroupKind, &'static str), BTreeSet<Slot>>,
}

impl Model {
    /// Drops a member; true if it was there and was the last one.
    fn remove(&mut self, slot: Slot, group: (GroupKind, &'static str)) -> bool {
        let Some(members) = self.groups.get_mut(&group) else { return false };
        let was_last = members.remove(&slot) && members.is_empty();
        if was_last {
            self.groups.remove(&group);
        }
        was_last
    }
}

/// The invariants that tie the hub's indexes to each other and to the model.
fn assert_consistent(hub: &Hub, model: &Model) {
    assert_eq!(hub.everyone().iter().copied().collect::<BTreeSet<_>>(), model.admitted);
    assert_eq!(hub.everyone().len(), model.admitted.len());
    assert_eq!(hub.names.len(), hub.groups.len());
    assert_eq!(hub.groups.len(), model.groups.len());
    for ((kind, name), members) in &model.groups {
        let found = hub.members(*kind, name);
        assert_eq!(found.len(), members.len(), "a member stands twice");
        assert_eq!(&found.iter().copied().collect::<BTreeSet<_>>(), members);
    }
    for (index, connection) in hub.connections.iter().enumerate() {
        let Some(connection) = connection else { continue };
        let slot = Slot(u32::try_from(index).unwrap());
        assert_eq!(hub.everyone[connection.everyone_position as usize], slot);
        for membership in &connection.memberships {
            let group = &hub.groups[membership.group as usize];
            assert_eq!(group.members[membership.position as usize], slot);
        }
    }
}

fn apply(hub: &mut Hub, model: &mut Model, step: &Step) {
    match *step {
        Step::Admit(slot) => {
            if model.admitted.insert(Slot(slot)) {
                hub.admit(Slot(slot));
            }
        }
        Step::Join(slot, kind, name) if model.admitted.contains(&Slot(slot)) => {
            let members = model.groups.entry((kind, name)).or_default();
            let first = members.is_empty();
            let outcome = hub.join(Slot(slot), kind, name);
            match (members.insert(Slot(slot)), first) {
                (false, _) => assert_eq!(outcome, Joined::Already),
                (true, false) => assert_eq!(outcome, Joined::Member),
                (true, true) => {
                    assert_eq!(outcome, Joined::First(GroupKey { kind, name: name.into() }));
                }
            }
        }
        Step::Leave(slot, kind, name) => {
            let outcome = hub.leave(Slot(slot), kind, name);
            assert_eq!(outcome.is_some(), model.remove(Slot(slot), (kind, name)));
        }
        Step::Forget(slot) => {
            let mut emptied = BTreeSet::new();
            hub.forget(Slot(slot), |key| assert!(emptied.insert((key.kind, key.name.to_string()))));
            model.admitted.remove(&Slot(slot));
            let groups: Vec<_> = model.groups.keys().copied().collect();
            let expected: BTreeSet<_> = groups
                .into_iter()
                .filter(|group| model.remove(Slot(slot), *group))
                .map(|(kind, name)| (kind, name.to_owned()))
                .collect();
            assert_eq!(emptied, expected);
        }
        Step::Join(..) => {}
    }
}

proptest! {
    #[test]
    fn it_agrees_with_plain_sets(steps in proptest::collection::vec(step(), 0..120)) {
        let (mut hub, mut model) = (Hub::default(), Model::default());
        for step in &steps {
            apply(&mut hub, &mut model, step);
            assert_consistent(&hub, &model);
        }
        for slot in 0..6 {
            apply(&mut hub, &mut model, &Step::Forget(slot));
        }
        assert_consistent(&hub, &model);
        prop_assert!(hub.groups.is_empty() && hub.connections.is_empty());
    }
}

#[test]
fn a_room_and_a_user_of_one_name_are_two_groups() {
    let mut hub = Hub::default();
    hub.admit(Slot(0));
    hub.admit(Slot(1));
    hub.join(Slot(0), GroupKind::Room, "x");
    hub.join(Slot(1), GroupKind::User, "x");
    assert_eq!(hub.members(GroupKind::Room, "x"), [Slot(0)]);
    assert_eq!(hub.members(GroupKind::User, "x"), [Slot(1)]);
    assert!(hub.is_member(Slot(0), GroupKind::Room, "x"));
    assert!(!hub.is_member(Slot(0), GroupKind::User, "x"));
}
