//! The table against a model of Redis that answers, refuses and disappears.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::worker::hub::GroupKey;

fn key(name: &str) -> ChannelKey {
    ChannelKey::Group(GroupKey::room(name))
}

fn answer_all(table: &mut Subscriptions) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    while let Some(command) = table.next_command() {
        let (subscribe, keys) = match command {
            SubscriptionCommand::Subscribe(keys) => (true, keys),
            SubscriptionCommand::Unsubscribe(keys) => (false, keys),
        };
        for key in keys {
            outcomes.push(table.answered(subscribe, |named| *named == key));
        }
    }
    outcomes
}

#[test]
fn a_channel_is_confirmed_by_its_answer_only() {
    let mut table = Subscriptions::default();
    table.connected();
    assert!(!table.want(key("a")));
    assert_eq!(table.next_command(), Some(SubscriptionCommand::Subscribe(vec![key("a")])));
    assert_eq!(table.counts(), (1, 0));
    assert_eq!(table.answered(true, |named| *named == key("b")), Outcome::Unexpected);
    assert_eq!(table.answered(true, |named| *named == key("a")), Outcome::Confirmed(key("a")));
    assert!(table.want(key("a")) && table.is_settled());
}

#[test]
fn a_rejoin_during_the_unsubscribe_waits_for_its_own_answer() {
    let mut table = Subscriptions::default();
    table.connected();
    table.want(key("a"));
    answer_all(&mut table);
    table.unwant(&key("a"));
    assert_eq!(table.next_command(), Some(SubscriptionCommand::Unsubscribe(vec![key("a")])));
    assert!(!table.want(key("a")), "the unsubscribe is under way");
    assert_eq!(table.next_command(), Some(SubscriptionCommand::Subscribe(vec![key("a")])));
    assert_eq!(table.answered(false, |_| true), Outcome::Noted);
    assert_eq!(table.answered(true, |_| true), Outcome::Confirmed(key("a")));
}

#[test]
fn a_subscription_given_up_and_wanted_again_before_redis_was_told_stands() {
    let mut table = Subscriptions::default();
    table.connected();
    table.want(key("a"));
    table.next_command();
    table.unwant(&key("a"));
    assert_eq!(table.answered(true, |_| true), Outcome::Noted);
    assert!(table.want(key("a")));
    assert_eq!(table.next_command(), None);
    assert!(table.is_settled());
}

#[test]
fn commands_are_batched_and_split_when_refused() {
    let mut table = Subscriptions::default();
    table.connected();
    for index in 0..=COMMAND_CHANNELS_MAX {
        table.want(key(&index.to_string()));
    }
    let sizes: Vec<_> = std::iter::from_fn(|| table.next_command())
        .map(|command| match command {
            SubscriptionCommand::Subscribe(keys) => keys.len(),
            SubscriptionCommand::Unsubscribe(_) => 0,
        })
        .collect();
    assert_eq!(sizes, [COMMAND_CHANNELS_MAX, 1]);
    assert_eq!(table.refuse(), Outcome::Noted);
    let last = key(&COMMAND_CHANNELS_MAX.to_string());
    assert_eq!(table.answered(true, |named| *named == last), Outcome::Confirmed(last));
    assert_eq!(table.next_command(), Some(SubscriptionCommand::Subscribe(vec![key("0")])));
    assert_eq!(table.refuse(), Outcome::Refused(key("0")));
    assert_eq!(answer_all(&mut table).len(), COMMAND_CHANNELS_MAX - 1);
    assert_eq!(table.refused(), [key("0")]);
    assert!(!table.is_settled());
    table.retry_refused();
    assert_eq!(answer_all(&mut table), [Outcome::Confirmed(key("0"))]);
    assert!(table.is_settled());
}

#[test]
fn a_refusal_says_nothing_of_a_channel_that_was_asked_for_again() {
    let mut table = Subscriptions::default();
    table.connected();
    table.want(key("a"));
    table.want(key("b"));
    table.next_command();
    table.unwant(&key("b"));
    table.next_command();
    table.want(key("b"));
    table.next_command();
    // The first command is refused whole; the two for b alone are not.
    assert_eq!(table.refuse(), Outcome::Noted);
    table.unwant(&key("b"));
    assert_eq!(table.answered(false, |named| *named == key("b")), Outcome::Noted);
    assert_eq!(table.answered(true, |named| *named == key("b")), Outcome::Noted);
    let mut rest = Vec::new();
    while let Some(command) = table.next_command() {
        rest.push(command);
    }
    assert!(rest.contains(&SubscriptionCommand::Unsubscribe(vec![key("b")])), "{rest:?}");
}

#[test]
fn churn_while_disconnected_leaves_nothing() {
    let mut table = Subscriptions::default();
    for index in 0..1000 {
        table.want(key(&index.to_string()));
        table.unwant(&key(&index.to_string()));
    }
    assert_eq!(table.counts(), (0, 0));
    assert_eq!(table.changed.len(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Want(u8),
    Unwant(u8),
    Send,
    Answer,
    Refuse,
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0_u8..5).prop_map(Step::Want),
        5 => (0_u8..5).prop_map(Step::Unwant),
        4 => Just(Step::Send),
        6 => Just(Step::Answer),
        1 => Just(Step::Refuse),
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
            match table.next_command() {
                Some(SubscriptionCommand::Subscribe(keys)) => redis.commands.push_back((true, keys.into())),
                Some(SubscriptionCommand::Unsubscribe(keys)) => redis.commands.push_back((false, keys.into())),
                None => return false,
            }
            true
        };
        for step in steps {
            match step {
                Step::Want(name) => {
                    wanted.insert(name);
                    if table.want(key(&name.to_string())) {
                        prop_assert!(redis.subscribed.contains(&key(&name.to_string())));
                    }
                }
                Step::Unwant(name) => {
                    wanted.remove(&name);
                    table.unwant(&key(&name.to_string()));
                }
                Step::Send => { send(&mut table, &mut redis); }
                Step::Answer => {
                    if let Some((subscribe, key)) = redis.answer() {
                        let outcome = table.answered(subscribe, |named| *named == key);
                        prop_assert_ne!(outcome, Outcome::Unexpected);
                    }
                }
                // Redis refuses a command whole, before any of its channels is answered.
                Step::Refuse => {
                    let whole = table.under_way.front().zip(redis.commands.front())
                        .is_some_and(|(ours, theirs)| ours.kind == CommandKind::Subscribe && ours.keys.len() == theirs.1.len());
                    if whole {
                        redis.commands.pop_front();
                        table.refuse();
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
            while send(&mut table, &mut redis) {}
            while let Some((subscribe, key)) = redis.answer() {
                table.answered(subscribe, |named| *named == key);
            }
        }
        let subscribed: BTreeSet<_> = redis.subscribed.iter().map(|key| format!("{key:?}")).collect();
        let expected: BTreeSet<_> = wanted.iter().map(|name| format!("{:?}", key(&name.to_string()))).collect();
        prop_assert_eq!(subscribed, expected);
        prop_assert!(table.is_settled());
        prop_assert_eq!(table.counts(), (wanted.len(), wanted.len()));
    }
}
