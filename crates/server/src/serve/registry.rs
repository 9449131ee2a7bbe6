//! Who holds a connection, and whose makes room for a new one.
//!
//! A connection is a *stranger's* until a request on it was let in: one with a valid key, or, where
//! there are no keys, any but a probe. Strangers of one address have a share of the connections, so
//! that an address which opens many of them stands in its own way only. Connections that were let in
//! have no such share: the usual client is one gateway, behind one address, with hundreds of them.
//!
//! A new connection never waits. The oldest stranger makes room for it, or else the connection that
//! was let in and has idled longest. Among strangers it does not count that one has a request: it can
//! only be a probe or a refusal, and a crowd of slow ones would else push out everybody who has just
//! come and is about to send a key.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct RegistryLimits {
    /// In all.
    pub(super) connections: usize,
    /// Strangers' of one address.
    pub(super) strangers_per_address: usize,
}

/// All open connections of one listener.
#[derive(Debug)]
pub(super) struct Registry {
    limits: RegistryLimits,
    /// Counts ends of requests, to tell which connection was used last.
    uses: AtomicU64,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    next_id: u64,
    /// By address, and there the oldest first. Without an address are those that came over Unix sockets.
    strangers: BTreeMap<Option<IpAddr>, BTreeMap<u64, Arc<Seat>>>,
    known: BTreeMap<u64, Arc<Seat>>,
    taken: usize,
}

/// One connection's place among the others.
#[derive(Debug)]
struct Seat {
    id: u64,
    network: Option<IpAddr>,
    known: AtomicBool,
    in_request: AtomicBool,
    last_use: AtomicU64,
    evicted: Notify,
}

impl Registry {
    pub(super) fn new(limits: RegistryLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            uses: AtomicU64::new(0),
            seats: Mutex::default(),
        })
    }

    /// A place for a new connection from `address`, or over a Unix socket; `None` if all others are in use.
    pub(super) fn admit(self: &Arc<Self>, address: impl Into<Option<IpAddr>>) -> Option<Stay> {
        let network = address.into().map(network);
        let mut seats = self.seats();
        if seats.strangers_of(network) >= self.limits.strangers_per_address {
            seats.evict_stranger(network);
        }
        if seats.taken >= self.limits.connections && !seats.make_room() {
            return None;
        }
        let seat = seats.add(network);
        drop(seats);
        Some(Stay(Visit {
            registry: Arc::clone(self),
            seat,
        }))
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    fn add(&mut self, network: Option<IpAddr>) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            id: self.next_id,
            network,
            known: AtomicBool::new(false),
            in_request: AtomicBool::new(false),
            last_use: AtomicU64::new(0),
            evicted: Notify::new(),
        });
        self.next_id += 1;
        self.taken += 1;
        let strangers = self.strangers.entry(network).or_default();
        strangers.insert(seat.id, Arc::clone(&seat));
        seat
    }

    /// Takes a seat out; nothing happens if it is out already.
    fn remove(&mut self, seat: &Seat) -> Option<Arc<Seat>> {
        let removed = self.remove_stranger(seat);
        let removed = removed.or_else(|| self.known.remove(&seat.id));
        self.taken -= usize::from(removed.is_some());
        removed
    }

    fn remove_stranger(&mut self, seat: &Seat) -> Option<Arc<Seat>> {
        let strangers = self.strangers.get_mut(&seat.network)?;
        let removed = strangers.remove(&seat.id);
        if strangers.is_empty() {
            self.strangers.remove(&seat.network);
        }
        removed
    }

    fn strangers_of(&self, network: Option<IpAddr>) -> usize {
        self.strangers.get(&network).map_or(0, BTreeMap::len)
    }

    fn make_room(&mut self) -> bool {
        // The address with the most, so that a crowd does not push out others; of several, the one
        // with the oldest connection.
        let busiest = self.strangers.iter().max_by_key(|(_, strangers)| {
            let oldest = strangers.keys().next().copied();
            (strangers.len(), Reverse(oldest))
        });
        if let Some((&network, _)) = busiest {
            return self.evict_stranger(network);
        }
        let idle = self.known.values().filter(|seat| !seat.is_in_request());
        let longest = idle.min_by_key(|seat| seat.last_use.load(Ordering::Relaxed));
        match longest.cloned() {
            Some(seat) => self.evict(&seat),
            None => false,
        }
    }

    /// The oldest stranger of an address goes.
    fn evict_stranger(&mut self, network: Option<IpAddr>) -> bool {
        let Some(strangers) = self.strangers.get(&network) else {
            return false;
        };
        match strangers.values().next().cloned() {
            Some(seat) => self.evict(&seat),
            None => false,
        }
    }

    fn evict(&mut self, seat: &Seat) -> bool {
        self.remove(seat);
        // A permit is kept for who does not wait yet.
        seat.evicted.notify_one();
        true
    }
}

impl Seat {
    fn is_in_request(&self) -> bool {
        self.in_request.load(Ordering::Relaxed)
    }
}

/// What counts as one address: of IPv6, the network that one customer usually has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            const INTERFACE_BITS: u32 = 64;
            let network = address.to_bits() >> INTERFACE_BITS << INTERFACE_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

/// A connection that is open; dropping this frees its place.
#[derive(Debug)]
pub(super) struct Stay(Visit);

impl Stay {
    pub(super) fn visit(&self) -> &Visit {
        &self.0
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let Visit { registry, seat } = &self.0;
        registry.seats().remove(seat);
    }
}

/// One connection as its requests see it; all clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    registry: Arc<Registry>,
    seat: Arc<Seat>,
}

impl Visit {
    /// A request on this connection was let in: it is no stranger's any more.
    pub(crate) fn let_in(&self) {
        if self.seat.known.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut seats = self.registry.seats();
        // It is in neither if it had to make room in the meantime.
        if let Some(seat) = seats.remove_stranger(&self.seat) {
            seats.known.insert(seat.id, seat);
        }
    }

    /// A request begins, and ends when what is returned is dropped.
    pub(super) fn begin(&self) -> Turn {
        self.seat.in_request.store(true, Ordering::Relaxed);
        Turn {
            visit: self.clone(),
        }
    }

    /// Resolves when the connection has to make room.
    pub(super) async fn evicted(&self) {
        self.seat.evicted.notified().await;
    }
}

/// A request that has not been answered to its last byte.
#[derive(Debug)]
pub(super) struct Turn {
    visit: Visit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Visit { registry, seat } = &self.visit;
        let uses = registry.uses.fetch_add(1, Ordering::Relaxed) + 1;
        seat.last_use.store(uses, Ordering::Relaxed);
        seat.in_request.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
