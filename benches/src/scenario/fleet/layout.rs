//! Who is on which edge, and in which rooms.
//!
//! Pure, and the same in every process that is told the same numbers. A branch has ten terminals that
//! connect on their own, each through a proxy that evens out: so every edge has as many clients, and
//! which of them are of one branch is left to chance. Ten branches are a merchant, and ten merchants a
//! region; a client is in the rooms of all three.

use crate::report::count;

/// Members of the rooms of a client, from the smallest to the largest.
pub const ROOM_MEMBERS: [usize; 3] = [10, 100, 1_000];

/// What the rooms are called, before their numbers.
const ROOM_NAMES: [&str; 3] = ["branch", "merchant", "region"];

/// Where the generator of chance begins; any number would do.
const SEED: u64 = 0x5EED;

/// Where everybody is. Clients are numbered through the fleet, edge after edge.
#[derive(Debug)]
pub struct Layout {
    edges: usize,
    per_edge: usize,
    /// Each client's place among all terminals, branch after branch.
    seats: Vec<usize>,
}

// === impl Layout ===

impl Layout {
    /// So many edges with so many clients each.
    pub fn new(edges: usize, per_edge: usize) -> Self {
        let mut seats: Vec<usize> = (0..edges * per_edge).collect();
        let mut state = SEED;
        for place in (1..seats.len()).rev() {
            seats.swap(place, below(&mut state, place + 1));
        }
        Self { edges, per_edge, seats }
    }

    /// Clients of all edges.
    pub fn clients(&self) -> usize {
        self.seats.len()
    }

    /// Clients of each edge.
    pub fn per_edge(&self) -> usize {
        self.per_edge
    }

    /// The first client of an edge; the others follow.
    pub fn first_client(&self, edge: usize) -> usize {
        edge * self.per_edge
    }

    /// Branches of all clients.
    pub fn branches(&self) -> usize {
        self.clients().div_ceil(ROOM_MEMBERS[0])
    }

    /// The branch that a client is of.
    pub fn branch_of(&self, client: usize) -> usize {
        self.seats[client] / ROOM_MEMBERS[0]
    }

    /// The rooms that a client joins.
    pub fn rooms_of(&self, client: usize) -> Vec<String> {
        let seat = self.seats[client];
        let rooms = ROOM_NAMES.iter().zip(ROOM_MEMBERS);
        rooms.map(|(name, members)| format!("{name}:{}", seat / members)).collect()
    }

    /// The edges on which each room of a size has members, on average.
    pub fn edges_per_room(&self, members: usize) -> f64 {
        let mut listens = vec![false; self.clients().div_ceil(members) * self.edges];
        for (client, seat) in self.seats.iter().enumerate() {
            listens[seat / members * self.edges + client / self.per_edge] = true;
        }
        let listening = listens.iter().filter(|listens| **listens).count();
        count(listening as u64) / count(self.clients().div_ceil(members) as u64)
    }
}

/// The room of a branch.
pub fn branch_room(branch: usize) -> String {
    format!("{}:{branch}", ROOM_NAMES[0])
}

/// A number below `bound`, by SplitMix64.
fn below(state: &mut u64, bound: usize) -> usize {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let remainder = (mixed ^ (mixed >> 31)) % bound as u64;
    usize::try_from(remainder).expect("it is below a usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_branch_has_its_terminals_and_every_edge_its_clients() {
        let layout = Layout::new(4, 500);
        let mut members = vec![0; layout.branches()];
        (0..layout.clients()).for_each(|client| members[layout.branch_of(client)] += 1);
        assert_eq!(members, vec![10; 200]);
        assert_eq!(
            (layout.clients(), layout.first_client(3), layout.per_edge()),
            (2_000, 1_500, 500)
        );
    }

    #[test]
    fn rooms_lie_within_each_other() {
        let layout = Layout::new(2, 1_000);
        let client = (0..2_000).find(|client| layout.seats[*client] == 1_234).unwrap();
        assert_eq!(layout.rooms_of(client), ["branch:123", "merchant:12", "region:1"]);
        assert_eq!(branch_room(layout.branch_of(client)), "branch:123");
    }

    #[test]
    fn terminals_of_a_branch_land_on_several_edges_by_chance() {
        let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.05;
        for edges in [1_u8, 2, 4, 8] {
            let layout = Layout::new(edges.into(), 2_000);
            for members in [10_u8, 100] {
                let expected = crate::million::edges_of_room(edges.into(), members.into());
                let found = layout.edges_per_room(members.into());
                assert!(close(found, expected), "{members} on {edges}: {found}, {expected}");
            }
        }
        assert_eq!(Layout::new(1, 100).edges_per_room(10).to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn every_process_sees_the_same() {
        assert_eq!(Layout::new(3, 70).seats, Layout::new(3, 70).seats);
    }
}
