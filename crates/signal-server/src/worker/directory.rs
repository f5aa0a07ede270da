//! Which worker listens to the bus for a room or user, and which workers have members.
//!
//! A channel is subscribed once per edge, on its home: the worker that had the first member. It stays
//! there as long as any worker has members, even if its own have left; the next home's time is another
//! [`Tenure`]. The directory is control-plane state under one lock, touched on a worker's first join and
//! last leave and by publishes on the in-process bus, never per delivery; it knows nothing of
//! connections or of Redis. Its size is that of the channels in use. With one worker there is nothing
//! to know, and it stays empty.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;

use super::hub::GroupKey;

/// Workers an edge may have: they are bits of one word.
pub(crate) const WORKERS_MAX: usize = 64;

/// A worker's number.
pub(crate) type WorkerId = u8;

/// One time of a worker as a group's home. What workers tell each other of a group names it, so that
/// word of an earlier time, still under way, is known to be stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tenure(u64);

/// A set of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkerSet(u64);

/// The directory; see the module.
#[derive(Debug)]
pub(crate) struct Directory {
    workers: usize,
    groups: Mutex<Groups>,
}

#[derive(Debug, Default)]
struct Groups {
    records: HashMap<GroupKey, Record>,
    last_tenure: Tenure,
}

#[derive(Debug)]
struct Record {
    home: WorkerId,
    tenure: Tenure,
    /// Workers with members, or about to tell the home that they have.
    members: WorkerSet,
}

// === impl WorkerSet ===

impl WorkerSet {
    /// Adds a worker.
    pub(crate) fn insert(&mut self, worker: WorkerId) {
        self.0 |= 1 << worker;
    }

    /// Takes a worker out.
    pub(crate) fn remove(&mut self, worker: WorkerId) {
        self.0 &= !(1 << worker);
    }

    /// All of the first `count` workers but one.
    pub(crate) fn others(worker: WorkerId, count: usize) -> Self {
        let all = if count == WORKERS_MAX { u64::MAX } else { (1 << count) - 1 };
        Self(all & !(1 << worker))
    }

    /// Whether no worker is in it.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The workers in it.
    pub(crate) fn iter(self) -> impl Iterator<Item = WorkerId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let worker = u8::try_from(rest.trailing_zeros()).ok().filter(|worker| *worker < 64)?;
            rest &= rest - 1;
            Some(worker)
        })
    }
}

// === impl Directory ===

impl Directory {
    /// An empty directory for an edge of `workers` workers.
    pub(crate) fn new(workers: usize) -> Self {
        assert!((1..=WORKERS_MAX).contains(&workers));
        Self { workers, groups: Mutex::default() }
    }

    /// `worker` has its first member; returns the home, which is `worker` if there was none.
    pub(crate) fn enter(&self, key: &GroupKey, worker: WorkerId) -> (WorkerId, Tenure) {
        if self.workers == 1 {
            return (worker, Tenure::default());
        }
        let mut groups = self.groups.lock();
        let Groups { records, last_tenure } = &mut *groups;
        let record = records.entry(key.clone()).or_insert_with(|| {
            last_tenure.0 += 1;
            Record { home: worker, tenure: *last_tenure, members: WorkerSet::default() }
        });
        record.members.insert(worker);
        (record.home, record.tenure)
    }

    /// `worker` lost its last member; returns the home.
    pub(crate) fn leave(&self, key: &GroupKey, worker: WorkerId) -> WorkerId {
        if self.workers == 1 {
            return worker;
        }
        let mut groups = self.groups.lock();
        let record =
            groups.records.get_mut(key).expect("a worker with members is in the directory");
        record.members.remove(worker);
        record.home
    }

    /// The home wants to give the channel up; returns whether it may, which ends the record. It may
    /// not if a worker has entered meanwhile and is about to say so.
    pub(crate) fn give_up(&self, key: &GroupKey) -> bool {
        if self.workers == 1 {
            return true;
        }
        match self.groups.lock().records.entry(key.clone()) {
            Entry::Occupied(record) if record.get().members.is_empty() => {
                record.remove();
                true
            }
            Entry::Occupied(_) => false,
            Entry::Vacant(_) => true,
        }
    }

    /// The home of a group, and its tenure, if any worker has members.
    pub(crate) fn home(&self, key: &GroupKey) -> Option<(WorkerId, Tenure)> {
        if self.workers == 1 {
            return Some((0, Tenure::default()));
        }
        self.groups.lock().records.get(key).map(|record| (record.home, record.tenure))
    }

    /// Records in the directory.
    pub(crate) fn len(&self) -> usize {
        self.groups.lock().records.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_stays_while_anyone_has_members() {
        let directory = Directory::new(3);
        let key = GroupKey::room("r");
        assert_eq!(directory.home(&key), None);
        let (home, tenure) = directory.enter(&key, 2);
        assert_eq!(home, 2);
        assert_eq!(directory.enter(&key, 0), (2, tenure));
        assert_eq!(directory.leave(&key, 2), 2);
        assert!(!directory.give_up(&key), "worker 0 has members");
        assert_eq!(directory.leave(&key, 0), 2);
        assert_eq!(directory.home(&key), Some((2, tenure)));
        assert!(directory.give_up(&key));
        assert_eq!(directory.len(), 0);
        let (home, next) = directory.enter(&key, 1);
        assert_eq!(home, 1);
        assert_ne!(next, tenure);
    }

    #[test]
    fn a_set_lists_its_workers() {
        let mut set = WorkerSet::default();
        for worker in [63, 0, 5] {
            set.insert(worker);
        }
        set.remove(5);
        assert!(set.iter().eq([0, 63]));
        assert!(WorkerSet::others(1, 3).iter().eq([0, 2]));
        assert_eq!(WorkerSet::others(0, 64).iter().count(), 63);
        assert!(!set.is_empty());
    }
}
