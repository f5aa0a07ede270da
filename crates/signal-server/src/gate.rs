//! Who may take a place before logging in, which costs a stranger nothing.
//!
//! It owns the places of connections that have not logged in, from the accept on: how many are taken,
//! by which addresses, and the rate of upgrades. A place is an [`Admission`] that gives itself back
//! when it is dropped, so no count can drift. A few spare places beyond the limit are for short
//! requests, so that a flood of silent connections does not silence the health checks too. It never
//! waits, and never looks at what a connection sends. Bounded by the places; an address is kept while
//! it holds one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::config::Config;
use crate::tally::{Allowance, Refusal};

/// Connections beyond a limit that may still ask for something short, in a hurry.
pub(crate) const SPARE_PLACES: usize = 128;

/// The part of an IPv6 address that tells one customer from another: the rest is theirs to choose.
const IPV6_NETWORK: u128 = !0 << 64;

/// The places; see the module.
#[derive(Debug)]
pub(crate) struct Gate {
    unauthenticated_max: usize,
    /// Zero: addresses are not counted.
    per_address_max: usize,
    /// Zero: upgrades are not counted.
    upgrades_per_second: u32,
    unauthenticated: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
    upgrades: Mutex<Allowance>,
}

/// A place among the connections that have not logged in; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    gate: Arc<Gate>,
    /// The address that it is counted under.
    address: Option<IpAddr>,
    /// It is beyond the limit: for short requests, and for an upgrade only if others have gone.
    is_spare: bool,
}

// === impl Gate ===

impl Gate {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            unauthenticated_max: config.max_unauthenticated,
            per_address_max: config.max_unauthenticated_per_address,
            upgrades_per_second: config.accept_rate,
            unauthenticated: AtomicUsize::new(0),
            addresses: Mutex::default(),
            upgrades: Mutex::new(Allowance::full()),
        }
    }

    /// Places taken.
    pub(crate) fn unauthenticated(&self) -> usize {
        self.unauthenticated.load(Ordering::Relaxed)
    }

    /// Whether connections are counted by their addresses.
    pub(crate) fn counts_addresses(&self) -> bool {
        self.per_address_max > 0
    }

    /// A place for a new connection; of this address, unless a proxy has yet to say whose it is.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Admission, Refusal> {
        let taken = self.unauthenticated.fetch_add(1, Ordering::Relaxed);
        // Made first, so that a place that is refused is given back too.
        let mut admission = Admission {
            gate: self.clone(),
            address: None,
            is_spare: taken >= self.unauthenticated_max,
        };
        if taken >= self.unauthenticated_max.saturating_add(SPARE_PLACES) {
            return Err(Refusal::Unauthenticated);
        }
        if let Some(address) = address {
            admission.set_address(address)?;
        }
        Ok(admission)
    }

    fn enter(&self, address: IpAddr) -> Result<(), Refusal> {
        let mut addresses = self.addresses.lock();
        let count = addresses.entry(address).or_default();
        if *count == self.per_address_max {
            return Err(Refusal::PerAddress);
        }
        *count += 1;
        Ok(())
    }

    fn leave(&self, address: IpAddr) {
        if let Entry::Occupied(mut entry) = self.addresses.lock().entry(address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

// === impl Admission ===

impl Admission {
    /// Whether its connection is to be brief.
    pub(crate) fn is_spare(&self) -> bool {
        self.is_spare
    }

    /// Counts the connection under this address from now on, if addresses are counted.
    pub(crate) fn set_address(&mut self, address: IpAddr) -> Result<(), Refusal> {
        let network = network(address);
        if !self.gate.counts_addresses() || self.address == Some(network) {
            return Ok(());
        }
        self.gate.enter(network)?;
        if let Some(former) = self.address.replace(network) {
            self.gate.leave(former);
        }
        Ok(())
    }

    /// The connection is to become a WebSocket: it needs a place within the limit, and one of the
    /// upgrades of this second.
    pub(crate) fn upgrade(&mut self) -> Result<(), Refusal> {
        if self.is_spare && self.gate.unauthenticated() > self.gate.unauthenticated_max {
            return Err(Refusal::Unauthenticated);
        }
        let rate = self.gate.upgrades_per_second;
        if rate > 0 && !self.gate.upgrades.lock().take(1, rate) {
            return Err(Refusal::AcceptRate);
        }
        self.is_spare = false;
        Ok(())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.gate.unauthenticated.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            self.gate.leave(address);
        }
    }
}

/// What one party holds: an IPv4 address, or a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn gate(change: impl FnOnce(&mut Config)) -> Arc<Gate> {
        let mut config = Config::default();
        change(&mut config);
        Arc::new(Gate::new(&config))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_given_back_whatever_becomes_of_them() {
        let gate = gate(|config| {
            config.max_unauthenticated = 2;
            config.max_unauthenticated_per_address = 1;
        });
        let one = gate.admit(Some(address("127.0.0.1"))).unwrap();
        assert_eq!(gate.admit(Some(address("127.0.0.1"))).unwrap_err(), Refusal::PerAddress);
        let mut two = gate.admit(None).unwrap();
        assert_eq!(two.set_address(address("::ffff:127.0.0.1")), Err(Refusal::PerAddress));
        assert_eq!(gate.unauthenticated(), 2);
        assert!(!one.is_spare() && !two.is_spare());
        let mut spare: Vec<_> = (0..SPARE_PLACES).map(|_| gate.admit(None).unwrap()).collect();
        assert_eq!(gate.admit(None).unwrap_err(), Refusal::Unauthenticated);
        assert_eq!(spare[0].upgrade(), Err(Refusal::Unauthenticated));
        two.upgrade().unwrap();
        let mut late = spare.pop().unwrap();
        drop((one, two, spare));
        late.upgrade().unwrap();
        assert!(!late.is_spare());
        drop(late);
        assert_eq!(gate.unauthenticated(), 0);
        assert!(gate.addresses.lock().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_party() {
        let gate = gate(|config| config.max_unauthenticated_per_address = 2);
        let _one = gate.admit(Some(address("2001:db8::1"))).unwrap();
        let mut two = gate.admit(Some(address("2001:db8::ffff:0:0:2"))).unwrap();
        assert_eq!(gate.admit(Some(address("2001:db8::3"))).unwrap_err(), Refusal::PerAddress);
        let _other = gate.admit(Some(address("2001:db8:0:1::1"))).unwrap();
        // Said again, it is the same; said otherwise, it is another's.
        two.set_address(address("2001:db8::2")).unwrap();
        two.set_address(address("192.0.2.1")).unwrap();
        gate.admit(Some(address("2001:db8::3"))).unwrap();
        assert_eq!(gate.addresses.lock().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn upgrades_come_at_their_rate() {
        let gate = gate(|config| config.accept_rate = 10);
        let upgrade = || gate.admit(None).unwrap().upgrade();
        for _ in 0..10 {
            upgrade().unwrap();
        }
        for _ in 0..100 {
            assert_eq!(upgrade(), Err(Refusal::AcceptRate), "no more");
            tokio::time::advance(Duration::from_millis(500)).await;
            for _ in 0..5 {
                upgrade().expect("ten a second");
            }
        }
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!((0..20).filter(|_| upgrade().is_ok()).count(), 10, "a burst of one second");
        assert_eq!(gate.unauthenticated(), 0);
    }
}
