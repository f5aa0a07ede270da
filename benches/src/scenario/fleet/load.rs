//! What is published to a fleet, and who gets it.
//!
//! Pure. Producer and clients are different processes, and agree on who was sent what by counting.

use signal_core::channel::Target;

use super::layout::{Layout, branch_room};
use crate::driver::{Turns, payload};

/// To whom messages are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One client after another, by its id.
    Client,
    /// One user after another.
    User,
    /// One branch after another.
    Branch,
    /// Everybody.
    Broadcast,
}

// === impl Kind ===

impl Kind {
    /// All, in the order in which they are measured.
    pub const ALL: [Self; 4] = [Self::Client, Self::User, Self::Branch, Self::Broadcast];

    /// What commands and files say.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::User => "user",
            Self::Branch => "branch",
            Self::Broadcast => "broadcast",
        }
    }

    /// The kind with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Targets that take turns.
    pub fn turns(self, layout: &Layout) -> Turns {
        Turns::among(match self {
            Self::Client | Self::User => layout.clients(),
            Self::Branch => layout.branches(),
            Self::Broadcast => 1,
        })
    }

    /// The target by which a client gets messages.
    pub fn target_of(self, layout: &Layout, client: usize) -> usize {
        match self {
            Self::Client | Self::User => client,
            Self::Branch => layout.branch_of(client),
            Self::Broadcast => 0,
        }
    }

    /// Calls `publish` with a target by its number; `ids` are the ids of all clients.
    pub fn address<T>(
        self,
        number: usize,
        ids: &[String],
        publish: impl FnOnce(Target<'_>) -> T,
    ) -> T {
        match self {
            Self::Client => publish(Target::Client(&ids[number])),
            Self::User => {
                let user = u32::try_from(number).expect("clients are fewer than sockets");
                publish(Target::User(&payload::user_id(user)))
            }
            Self::Branch => publish(Target::Room(&branch_room(number))),
            Self::Broadcast => publish(Target::Broadcast),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_expected() {
        let layout = Layout::new(2, 200);
        for (kind, receivers) in Kind::ALL.into_iter().zip([1, 1, 10, 400]) {
            assert_eq!(Kind::named(kind.name()), Some(kind));
            let turns = kind.turns(&layout).after(77);
            let clients = 0..layout.clients();
            let expected: u64 =
                clients.map(|client| turns.sent(kind.target_of(&layout, client))).sum();
            assert_eq!(expected, 77 * receivers, "{kind:?}");
        }
    }

    #[test]
    fn targets_have_their_names() {
        let ids = ["a".to_owned(), "b".to_owned()];
        let name = |kind: Kind| kind.address(1, &ids, |target| format!("{target:?}"));
        assert_eq!(name(Kind::Client), "Client(\"b\")");
        assert_eq!(name(Kind::User), "User(\"u00001\")");
        assert_eq!(name(Kind::Branch), "Room(\"branch:1\")");
        assert_eq!(name(Kind::Broadcast), "Broadcast");
    }
}
