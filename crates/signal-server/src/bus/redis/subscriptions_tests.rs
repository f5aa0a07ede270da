//! The table against a model of Redis that answers, refuses and disappears.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::worker::hub::GroupKey;

fn key(name: &str) -> ChannelKey {
    ChannelKey::Group(GroupKey::room(name))
}

fn named(name: u8) -> ChannelKey {
    key(&name.to_string())
}

fn subscribe(key: ChannelKey) -> SubscriptionCommand {
    SubscriptionCommand { subscribe: true, partition: 0, keys: vec![key] }
}

fn unsubscribe(key: ChannelKey) -> SubscriptionCommand {
    SubscriptionCommand { subscribe: false, ..subscribe(key) }
}

fn answer_all(table: &mut Subscriptions) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    while let Some(command) = table.next_command() {
        for key in command.keys {
            outcomes.push(table.answered(command.subscribe, |named| *named == key));
        }
    }
    outcomes
}

#[test]
fn a_channel_is_confirmed_by_its_answer_only() {
    let mut table = Subscriptions::default();
    table.connected();
    assert!(!table.want(key("a"), 0));
    assert_eq!(table.next_command(), Some(subscribe(key("a"))));
    assert_eq!(table.counts(), (1, 0));
    assert_eq!(table.answered(true, |named| *named == key("b")), Outcome::Unexpected);
    assert_eq!(table.answered(true, |named| *named == key("a")), Outcome::Confirmed(key("a")));
    assert!(table.want(key("a"), 0) && table.is_settled());
}

#[test]
fn a_rejoin_during_the_unsubscribe_waits_for_its_own_answer() {
    let mut table = Subscriptions::default();
    table.connected();
    table.want(key("a"), 0);
    answer_all(&mut table);
    table.unwant(&key("a"));
    assert_eq!(table.next_command(), Some(unsubscribe(key("a"))));
    assert!(!table.want(key("a"), 0), "the unsubscribe is under way");
    assert_eq!(table.next_command(), Some(subscribe(key("a"))));
    assert_eq!(table.answered(false, |_| true), Outcome::Noted);
    assert_eq!(table.answered(true, |_| true), Outcome::Confirmed(key("a")));
}

#[test]
fn a_subscription_given_up_and_wanted_again_before_redis_was_told_stands() {
    let mut table = Subscriptions::default();
    table.connected();
    table.want(key("a"), 0);
    table.next_command();
    table.unwant(&key("a"));
    assert_eq!(table.answered(true, |_| true), Outcome::Noted);
    assert!(table.want(key("a"), 0));
    assert_eq!(table.next_command(), None);
    assert!(table.is_settled());
}

#[test]
fn commands_are_batched_and_split_when_refused() {
    let mut table = Subscriptions::default();
    table.connected();
    for index in 0..=SUBSCRIBE_BATCH_MAX {
        table.want(key(&index.to_string()), 0);
    }
    let sizes: Vec<_> =
        std::iter::from_fn(|| table.next_command()).map(|command| command.keys.len()).collect();
    assert_eq!(sizes, [SUBSCRIBE_BATCH_MAX, 1]);
    assert_eq!(table.refuse(Refusal::Channels), Outcome::Noted);
    let last = key(&SUBSCRIBE_BATCH_MAX.to_string());
    assert_eq!(table.answered(true, |named| *named == last), Outcome::Confirmed(last));
    assert_eq!(table.next_command(), Some(subscribe(key("0"))));
    assert_eq!(table.refuse(Refusal::Channels), Outcome::Refused(key("0")));
    assert_eq!(answer_all(&mut table).len(), SUBSCRIBE_BATCH_MAX - 1);
    assert_eq!(table.refused(), [key("0")]);
    assert!(!table.is_settled() && table.is_delivering(), "all the others arrive");
    table.retry_refused();
    assert_eq!(answer_all(&mut table), [Outcome::Confirmed(key("0"))]);
    assert!(table.is_settled());
}

#[test]
fn a_refusal_says_nothing_of_a_channel_that_was_asked_for_again() {
    let mut table = Subscriptions::default();
    table.connected();
    table.want(key("a"), 0);
    table.want(key("b"), 0);
    table.next_command();
    table.unwant(&key("b"));
    table.next_command();
    table.want(key("b"), 0);
    table.next_command();
    // The first command is refused whole; the two for b alone are not.
    assert_eq!(table.refuse(Refusal::Channels), Outcome::Noted);
    table.unwant(&key("b"));
    assert_eq!(table.answered(false, |named| *named == key("b")), Outcome::Noted);
    assert_eq!(table.answered(true, |named| *named == key("b")), Outcome::Noted);
    let mut rest = Vec::new();
    while let Some(command) = table.next_command() {
        rest.push(command);
    }
    assert!(rest.contains(&unsubscribe(key("b"))), "{rest:?}");
}

#[test]
fn a_command_names_channels_of_one_partition() {
    let mut table = Subscriptions::default();
    table.connected();
    for name in 0..6 {
        table.want(named(name), name % 3);
    }
    let commands: Vec<_> = std::iter::from_fn(|| table.next_command()).collect();
    assert_eq!(commands.len(), 3);
    for (partition, command) in (0..3).zip(commands) {
        assert_eq!(command.partition, partition);
        assert_eq!(command.keys, [named(partition), named(partition + 3)]);
    }
}

#[test]
fn what_is_refused_for_the_state_of_the_cluster_waits_for_it_to_change() {
    let mut table = Subscriptions::default();
    table.connected();
    table.want(key("a"), 0);
    table.want(key("b"), 0);
    table.next_command();
    assert_eq!(table.refuse(Refusal::State), Outcome::Noted);
    assert_eq!(table.next_command(), None);
    table.unwant(&key("b"));
    table.retry_postponed();
    assert_eq!(answer_all(&mut table), [Outcome::Confirmed(key("a"))]);
    assert!(table.is_settled());
}

#[test]
fn what_redis_takes_away_is_asked_for_again_when_the_topology_is_known() {
    let mut table = Subscriptions::default();
    table.connected();
    table.want(key("a"), 0);
    answer_all(&mut table);
    assert!(table.taken_away(&key("a")));
    assert!(!table.is_settled());
    assert_eq!(table.next_command(), None);
    table.retry_postponed();
    assert_eq!(answer_all(&mut table), [Outcome::Confirmed(key("a"))]);
    table.unwant(&key("a"));
    assert!(!table.taken_away(&key("a")), "given up already");
    assert_eq!(table.next_command(), None);
    assert_eq!(table.counts(), (0, 0));
}

#[test]
fn churn_while_disconnected_leaves_nothing() {
    let mut table = Subscriptions::default();
    for index in 0..1000 {
        table.want(key(&index.to_string()), 0);
        table.unwant(&key(&index.to_string()));
    }
    assert_eq!(table.counts(), (0, 0));
    assert_eq!(table.changed.turns.len(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Want(u8),
    Unwant(u8),
    Send,
    Answer,
    Refuse(Refusal),
    TakeAway(u8),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0_u8..5).prop_map(Step::Want),
        5 => (0_u8..5).prop_map(Step::Unwant),
        4 => Just(Step::Send),
        6 => Just(Step::Answer),
        1 => Just(Step::Refuse(Refusal::Channels)),
        1 => Just(Step::Refuse(Refusal::State)),
        1 => (0_u8..5).prop_map(Step::TakeAway),
        1 => Just(Step::Reconnect),
    ]
}

/// Redis as far as one connection's subscriptions go.
#[derive(Default)]
struct FakeRedis {
    commands: VecDeque<(bool, VecDeque<ChannelKey>)>,
    subscribed: Vec<ChannelKey>,
}

impl FakeRedis {
    /// Works off one channel of the oldest command.
    fn answer(&mut self) -> Option<(bool, ChannelKey)> {
        let (subscribe, keys) = self.commands.front_mut()?;
        let (subscribe, key) = (*subscribe, keys.pop_front().expect("commands are not empty"));
        if keys.is_empty() {
            self.commands.pop_front();
        }
        self.subscribed.retain(|subscribed| *subscribed != key);
        if subscribe {
            self.subscribed.push(key.clone());
        }
        Some((subscribe, key))
    }
}

proptest! {
    #[test]
    fn what_is_confirmed_is_subscribed_and_all_wanted_is_confirmed_in_the_end(
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut table = Subscriptions::default();
        let mut redis = FakeRedis::default();
        let mut wanted = BTreeSet::new();
        table.connected();
        let send = |table: &mut Subscriptions, redis: &mut FakeRedis| {
            let Some(command) = table.next_command() else { return false };
            let partitions = |key: &ChannelKey| (0..5).find(|name| named(*name) == *key).map(|name| name % 2);
            assert!(command.keys.iter().all(|key| partitions(key) == Some(command.partition)));
            redis.commands.push_back((command.subscribe, command.keys.into()));
            true
        };
        for step in steps {
            match step {
                Step::Want(name) => {
                    wanted.insert(name);
                    if table.want(named(name), name % 2) {
                        prop_assert!(redis.subscribed.contains(&named(name)));
                    }
                }
                Step::Unwant(name) => {
                    wanted.remove(&name);
                    table.unwant(&named(name));
                }
                Step::Send => { send(&mut table, &mut redis); }
                Step::Answer => {
                    if let Some((subscribe, key)) = redis.answer() {
                        let outcome = table.answered(subscribe, |named| *named == key);
                        prop_assert_ne!(outcome, Outcome::Unexpected);
                    }
                }
                // Redis refuses a command whole, before any of its channels is answered.
                Step::Refuse(refusal) => {
                    let whole = table.under_way.front().zip(redis.commands.front())
                        .is_some_and(|(ours, theirs)| ours.kind == CommandKind::Subscribe && ours.keys.len() == theirs.1.len());
                    if whole {
                        redis.commands.pop_front();
                        table.refuse(refusal);
                    }
                }
                // A slot moves away, of a channel that no command is under way for.
                Step::TakeAway(name) => {
                    let key = named(name);
                    let asked = redis.commands.iter().any(|(_, keys)| keys.contains(&key));
                    if !asked && redis.subscribed.contains(&key) {
                        redis.subscribed.retain(|subscribed| *subscribed != key);
                        prop_assert_eq!(table.taken_away(&key), wanted.contains(&name));
                        prop_assert!(!table.is_confirmed(&key));
                    }
                }
                Step::Reconnect => {
                    redis = FakeRedis::default();
                    table.connected();
                }
            }
        }
        for _ in 0..20 {
            table.retry_refused();
            table.retry_postponed();
            while send(&mut table, &mut redis) {}
            while let Some((subscribe, key)) = redis.answer() {
                table.answered(subscribe, |named| *named == key);
            }
        }
        let subscribed: BTreeSet<_> = redis.subscribed.iter().map(|key| format!("{key:?}")).collect();
        let expected: BTreeSet<_> = wanted.iter().map(|name| format!("{:?}", named(*name))).collect();
        prop_assert_eq!(subscribed, expected);
        prop_assert!(table.is_settled() && table.is_delivering());
        prop_assert_eq!(table.denied, 0);
        prop_assert_eq!(table.counts(), (wanted.len(), wanted.len()));
    }
}
