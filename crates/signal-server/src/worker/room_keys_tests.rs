//! Room keys against a model of what every client was ever handed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;
use signal_core::crypto::Key;
use signal_core::json;
use signal_core::message;
use signal_core::v1::Variant;

use super::*;
use crate::worker::hub::{GroupKind, Hub, Joined, Slot};

const ROOMS: [&str; 3] = ["a", "b", "c"];

/// So few that the bound is met in a test.
const MESSAGES_MAX: u64 = 5;

#[derive(Clone, Debug)]
enum Step {
    /// A client logs in, in the default room `a`; whether it is a holder.
    Connect(u32, bool),
    Join(u32, &'static str),
    Leave(u32, &'static str),
    /// However it ends: closed, kicked, revoked, gone.
    Disconnect(u32),
    /// All members of a room leave it at once.
    LeaveAll(&'static str),
    Publish(&'static str),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0_u32..6;
    let room = prop::sample::select(&ROOMS[..]);
    prop_oneof![
        3 => (slot.clone(), prop::bool::weighted(0.7)).prop_map(|(s, h)| Step::Connect(s, h)),
        6 => (slot.clone(), room.clone()).prop_map(|(s, r)| Step::Join(s, r)),
        3 => (slot.clone(), room.clone()).prop_map(|(s, r)| Step::Leave(s, r)),
        2 => slot.prop_map(Step::Disconnect),
        1 => room.clone().prop_map(Step::LeaveAll),
        10 => room.prop_map(Step::Publish),
        1 => (0..2 * KEY_AGE_MAX.as_secs()).prop_map(Step::Wait),
    ]
}

/// What a client has been handed, in order: the latest key of each room, as the wire says it may forget
/// earlier ones.
#[derive(Default)]
struct Client {
    is_holder: bool,
    keys: BTreeMap<String, (u64, Key)>,
}

/// A worker as far as room keys go, beside everything that its clients know.
struct Model {
    hub: Hub,
    keys: RoomKeys,
    now: Tick,
    clients: BTreeMap<u32, Client>,
    /// Keys that somebody holds who is no member any more.
    tainted: BTreeSet<u64>,
    /// When each key was handed over first, and the messages seen under it.
    born: BTreeMap<u64, (Tick, u64)>,
    ivs: HashSet<(u64, String)>,
    published: u64,
}

impl Model {
    fn new(worker: WorkerId) -> Self {
        let mut keys = RoomKeys::new(worker);
        keys.messages_max = MESSAGES_MAX;
        Self {
            hub: Hub::default(),
            keys,
            now: Tick(0),
            clients: BTreeMap::new(),
            tainted: BTreeSet::new(),
            born: BTreeMap::new(),
            ivs: HashSet::new(),
            published: 0,
        }
    }

    /// A client reads a `roomkey`.
    fn hand(&mut self, slot: u32, handover: &str) {
        let [room, kid, key] = json::members(handover, &["room", "kid", "key"]).unwrap();
        let text = |token: Option<&str>| json::unescape(token.unwrap()).unwrap().into_owned();
        let kid: u64 = kid.unwrap().parse().unwrap();
        assert!(!self.tainted.contains(&kid), "a key that a former member holds is handed over");
        self.born.entry(kid).or_insert((self.now, 0));
        let client = self.clients.get_mut(&slot).expect("it is connected");
        assert!(client.is_holder, "it cannot open the handover");
        client.keys.insert(text(room), (kid, Key::from_base64(&text(key)).unwrap()));
    }

    fn join(&mut self, slot: u32, room: &str) {
        let Some(client) = self.clients.get(&slot) else { return };
        let is_holder = client.is_holder;
        if self.hub.join(Slot(slot), GroupKind::Room, room) != Joined::Already
            && is_holder
            && let Some(handover) = self.keys.joined(room)
        {
            self.hand(slot, &handover);
        }
    }

    fn leave(&mut self, slot: u32, room: &str) {
        if !self.hub.is_member(Slot(slot), GroupKind::Room, room) {
            return;
        }
        self.hub.leave(Slot(slot), GroupKind::Room, room);
        let client = &self.clients[&slot];
        if client.is_holder {
            self.tainted.extend(client.keys.get(room).map(|(kid, _)| *kid));
            self.keys.left(room);
        }
    }

    fn disconnect(&mut self, slot: u32) {
        if !self.clients.contains_key(&slot) {
            return;
        }
        for room in ROOMS {
            self.leave(slot, room);
        }
        self.hub.forget(Slot(slot), |_| {});
        self.clients.remove(&slot);
    }

    fn holders(&self, room: &str) -> Vec<u32> {
        let members = self.hub.members(GroupKind::Room, room).iter().map(|slot| slot.0);
        members.filter(|slot| self.clients[slot].is_holder).collect()
    }

    /// A message to a room: whatever has to be true of it is checked by those who get it.
    fn publish(&mut self, room: &str) {
        self.published += 1;
        let holders = self.holders(room);
        match self.keys.prepare(room, self.now) {
            Readiness::NoHolders => {
                assert!(holders.is_empty());
                assert!(self.keys.key(room).is_none());
                return;
            }
            Readiness::Ready => {}
            Readiness::Fresh { handover, holders: count } => {
                assert_eq!(count, holders.len());
                for &slot in &holders {
                    self.hand(slot, &handover);
                }
            }
        }
        let text = format!("to {room}, {}", self.published);
        let mut out = text.clone().into_bytes();
        let key = self.keys.key(room).expect("it was prepared");
        key.seal(&mut out, 0, Variant::V1Json, |_| b"");
        let message = std::str::from_utf8(&out).unwrap();
        let data = message::parse(message).unwrap().data.unwrap();
        let [kid, iv] = json::members(data, &["kid", "iv"]).unwrap().map(Option::unwrap);
        let kid: u64 = kid.parse().unwrap();
        assert!(self.ivs.insert((kid, iv.to_owned())), "an IV repeats under one key");
        assert!(!self.tainted.contains(&kid), "sealed under a key that a former member holds");
        for slot in holders {
            let (held, key) = &self.clients[&slot].keys[room];
            assert_eq!(*held, kid, "sealed under a key that a member was not handed");
            assert_eq!(key.open(data).as_deref(), Ok(&*text));
        }
        let (born, messages) = self.born.get_mut(&kid).expect("a holder has it");
        *messages += 1;
        assert!(*messages <= MESSAGES_MAX && self.now.since(*born) < KEY_AGE_MAX);
        // Keys are lazy: none without a message.
        assert!(self.keys.made() <= self.published);
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Connect(slot, is_holder) if !self.clients.contains_key(&slot) => {
                self.hub.admit(Slot(slot));
                self.clients.insert(slot, Client { is_holder, ..Client::default() });
                self.join(slot, ROOMS[0]);
            }
            Step::Connect(..) => {}
            Step::Join(slot, room) => self.join(slot, room),
            Step::Leave(slot, room) => self.leave(slot, room),
            Step::Disconnect(slot) => self.disconnect(slot),
            Step::LeaveAll(room) => {
                for slot in 0..6 {
                    self.leave(slot, room);
                }
            }
            Step::Publish(room) => self.publish(room),
            Step::Wait(seconds) => self.now = self.now.after(Duration::from_secs(seconds)),
        }
        let rooms = ROOMS.iter().filter(|room| !self.holders(room).is_empty()).count();
        assert_eq!(self.keys.len(), rooms, "a room without holders is forgotten");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn members_read_everything_and_nobody_else_anything(
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        // Two workers, whose keys must not be taken for each other's.
        let mut models = [Model::new(0), Model::new(1)];
        for (index, step) in steps.iter().enumerate() {
            models[index % 2].apply(step);
        }
        let [first, second] = &mut models;
        prop_assert!(first.born.keys().all(|kid| !second.born.contains_key(kid)));
        for model in [first, second] {
            for slot in 0..6 {
                model.disconnect(slot);
            }
            prop_assert_eq!(model.keys.len(), 0);
        }
    }
}

#[test]
fn a_thousand_leaves_cost_one_key() {
    let mut keys = RoomKeys::new(63);
    for _ in 0..1001 {
        assert_eq!(keys.joined("r"), None, "no message, no key");
    }
    assert!(matches!(keys.prepare("r", Tick(0)), Readiness::Fresh { holders: 1001, .. }));
    for _ in 0..1000 {
        keys.left("r");
    }
    assert_eq!(keys.made(), 1);
    assert!(matches!(keys.prepare("r", Tick(0)), Readiness::Fresh { holders: 1, .. }));
    assert_eq!(keys.prepare("r", Tick(0)), Readiness::Ready);
    assert_eq!(keys.made(), 2);
    assert_eq!(keys.key("r").unwrap().kid(), 64 + 63);
    keys.left("r");
    assert_eq!((keys.len(), keys.prepare("r", Tick(0))), (0, Readiness::NoHolders));
}

#[test]
fn a_key_ends_with_its_age() {
    let mut keys = RoomKeys::new(0);
    keys.joined("r");
    assert!(matches!(keys.prepare("r", Tick(0)), Readiness::Fresh { .. }));
    let end = Tick(0).after(KEY_AGE_MAX);
    assert_eq!(keys.prepare("r", Tick(end.0 - 2)), Readiness::Ready);
    assert!(matches!(keys.prepare("r", end), Readiness::Fresh { .. }));
}
