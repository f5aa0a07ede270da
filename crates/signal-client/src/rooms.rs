//! The rooms that the application wants, and how far each one is; and the joins that wait for them.
//!
//! Pure. As many rooms as the application joins; the edge has a limit of its own.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::client::RequestError;

/// How far a room is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Not asked for yet, or not answered.
    Wanted,
    /// Joined, but the bus has not confirmed it.
    Degraded,
    Joined,
}

type Answer = oneshot::Sender<Result<(), RequestError>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    wanted: BTreeMap<String, Status>,
    waiting: Vec<(Vec<String>, Answer)>,
}

// === impl Rooms ===

impl Rooms {
    /// Wants these rooms; returns those that are new.
    pub(crate) fn want(&mut self, rooms: &[String]) -> Vec<String> {
        let fresh: Vec<_> =
            rooms.iter().filter(|room| !self.wanted.contains_key(*room)).cloned().collect();
        self.wanted.extend(fresh.iter().map(|room| (room.clone(), Status::Wanted)));
        fresh
    }

    /// Answers once all of them are joined, which may be now.
    pub(crate) fn wait(&mut self, rooms: Vec<String>, answer: Answer) {
        self.waiting.push((rooms, answer));
        self.settle();
    }

    pub(crate) fn is_wanted(&self, room: &str) -> bool {
        self.wanted.contains_key(room)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.wanted.keys().cloned().collect()
    }

    /// Forgets them, and refuses the joins that wait for one of them.
    pub(crate) fn forget(&mut self, rooms: &[String], error: &RequestError) {
        for room in rooms {
            self.wanted.remove(room);
        }
        let waiting = std::mem::take(&mut self.waiting);
        for (names, answer) in waiting {
            if names.iter().any(|name| rooms.contains(name)) {
                // Nobody may wait any more.
                let _ = answer.send(Err(error.clone()));
            } else {
                self.waiting.push((names, answer));
            }
        }
    }

    /// The edge has joined these.
    pub(crate) fn joined(&mut self, rooms: &[String], status: Status) {
        for room in rooms {
            if let Some(current) = self.wanted.get_mut(room) {
                *current = status;
            }
        }
        self.settle();
    }

    /// What was joined before the bus confirmed it is confirmed; `None` is all.
    pub(crate) fn confirm(&mut self, rooms: Option<&[String]>) {
        for (room, status) in &mut self.wanted {
            let is_meant = rooms.is_none_or(|rooms| rooms.contains(room));
            if *status == Status::Degraded && is_meant {
                *status = Status::Joined;
            }
        }
        self.settle();
    }

    /// The connection is gone, and every membership with it.
    pub(crate) fn reset(&mut self) {
        self.wanted.values_mut().for_each(|status| *status = Status::Wanted);
    }

    fn settle(&mut self) {
        let (done, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(names, answer)| {
                answer.is_closed()
                    || names.iter().all(|name| self.wanted.get(name) == Some(&Status::Joined))
            });
        self.waiting = waiting;
        for (_, answer) in done {
            let _ = answer.send(Ok(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rooms: &[&str]) -> Vec<String> {
        rooms.iter().map(|&room| room.to_owned()).collect()
    }

    #[test]
    fn a_join_waits_until_all_of_its_rooms_are_confirmed() {
        let mut rooms = Rooms::default();
        assert_eq!(rooms.want(&names(&["a", "b"])), names(&["a", "b"]));
        assert!(rooms.want(&names(&["a"])).is_empty());
        let (answer, mut join) = oneshot::channel();
        rooms.wait(names(&["a", "b"]), answer);
        rooms.joined(&names(&["a"]), Status::Joined);
        rooms.joined(&names(&["b"]), Status::Degraded);
        rooms.confirm(Some(&names(&["a"])));
        assert!(join.try_recv().is_err());
        rooms.confirm(None);
        assert_eq!(join.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn what_is_forgotten_refuses_its_joins_and_no_other() {
        let mut rooms = Rooms::default();
        rooms.want(&names(&["a", "b"]));
        let (answer, mut refused) = oneshot::channel();
        rooms.wait(names(&["a", "b"]), answer);
        let (answer, mut other) = oneshot::channel();
        rooms.wait(names(&["b"]), answer);
        rooms.forget(&names(&["a"]), &RequestError::Left);
        assert_eq!(refused.try_recv(), Ok(Err(RequestError::Left)));
        rooms.joined(&names(&["b"]), Status::Joined);
        assert_eq!(other.try_recv(), Ok(Ok(())));
        rooms.reset();
        assert_eq!(rooms.names(), names(&["b"]));
    }
}
