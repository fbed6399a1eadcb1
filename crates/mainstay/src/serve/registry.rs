//! Who is connected: the caps, and who gives way when they are reached.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::deadline::Ms;
use super::drain::Drain;
use super::limits::Limits;
use super::shared::Shared;

/// Connections above the cap while those that gave way for them are about to close.
const LEAVING_MAX: usize = 16;

/// A connection that gives way closes as soon as its task runs; one whose handler blocks is not waited for longer than this.
const LEAVING: Duration = Duration::from_millis(100);

/// An address as the caps count it: IPv4 whole, IPv6 by its /64, because one customer has at least that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Neighbourhood {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Neighbourhood {
    fn from(addr: IpAddr) -> Neighbourhood {
        match addr.to_canonical() {
            IpAddr::V4(v4) => Neighbourhood::V4(v4.to_bits()),
            // The upper half; the shift leaves 64 bits.
            IpAddr::V6(v6) => Neighbourhood::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

/// Which cap a refused connection met; the value of the `reason` label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Total,
    Address,
}

impl Refusal {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Refusal::Total => "connections_max",
            Refusal::Address => "connections_per_address_max",
        }
    }
}

/// Every open connection of one listener.
#[derive(Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
    emptied: Notify,
    /// One has closed; for the accept loop, which alone waits for it.
    left: Notify,
}

#[derive(Default)]
struct Inner {
    slots: Vec<Option<Arc<Shared>>>,
    free: Vec<usize>,
    counts: HashMap<Neighbourhood, usize>,
    open: usize,
    /// Where the next search for a victim begins.
    hand: usize,
}

/// A connection's place; given back by dropping it.
pub(crate) struct Seat {
    registry: Arc<Registry>,
    slot: usize,
    pub(crate) shared: Arc<Shared>,
}

impl Registry {
    /// Gives a new connection its place. Over a cap the connection that has waited longest for its client gives way; if
    /// all are being served, the new one is refused.
    pub(crate) fn admit(self: &Arc<Registry>, addr: SocketAddr, limits: &Limits, drain: &Drain) -> Result<Seat, Refusal> {
        let trusted = (limits.trusted)(addr.ip());
        let key = Neighbourhood::from(addr.ip());
        let mut inner = self.lock();
        let of_address = inner.counts.get(&key).copied().unwrap_or(0);
        if !trusted && of_address >= limits.connections_per_address_max {
            inner.evict(Some(key)).ok_or(Refusal::Address)?;
        } else if inner.open >= limits.connections_max {
            inner.evict(None).ok_or(Refusal::Total)?;
        }
        let shared = Arc::new(Shared::new(addr, trusted, drain.clone()));
        let slot = inner.free.pop().unwrap_or_else(|| {
            inner.slots.push(None);
            inner.slots.len() - 1
        });
        if let Some(place) = inner.slots.get_mut(slot) {
            *place = Some(Arc::clone(&shared));
        }
        *inner.counts.entry(key).or_insert(0) += 1;
        inner.open += 1;
        Ok(Seat { registry: Arc::clone(self), slot, shared })
    }

    /// Makes one waiting connection give way, whoever it is: there are no descriptors left.
    pub(crate) fn evict_any(&self) {
        let _ = self.lock().evict(None);
    }

    /// Waits until those that gave way have gone, but for a few: in a rush connections are accepted faster than others close, and the cap is there for the
    /// descriptors and the memory of both.
    pub(crate) async fn relieved(&self, connections_max: usize) {
        let gone = async {
            while self.open() > connections_max.saturating_add(LEAVING_MAX) {
                self.left.notified().await;
            }
        };
        // Then the next one may still be refused.
        let _ = tokio::time::timeout(LEAVING, gone).await;
    }

    /// Wakes every connection to look at its deadlines.
    pub(crate) fn wake_all(&self) {
        let all: Vec<_> = self.lock().slots.iter().flatten().cloned().collect();
        all.iter().for_each(|shared| shared.wake());
    }

    pub(crate) fn open(&self) -> usize {
        self.lock().open
    }

    /// Returns when no connection is left.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Looks at up to 512 connections from where the last search ended, so that a flood costs each accept a bounded time,
    /// and evicts the one with the lowest standing.
    fn evict(&mut self, of: Option<Neighbourhood>) -> Option<()> {
        const LOOKS_MAX: usize = 512;
        let count = self.slots.len();
        let mut looks = 0;
        let mut victim: Option<((u8, Ms), &Arc<Shared>)> = None;
        for step in 0..count {
            let at = (self.hand + step) % count;
            let Some(Some(shared)) = self.slots.get(at) else {
                continue;
            };
            if of.is_some_and(|key| key != Neighbourhood::from(shared.addr.ip())) || (of.is_none() && shared.trusted) {
                continue;
            }
            if let Some(standing) = shared.standing()
                && victim.is_none_or(|(known, _)| standing < known)
            {
                victim = Some((standing, shared));
            }
            looks += 1;
            if looks == LOOKS_MAX {
                self.hand = (at + 1) % count;
                break;
            }
        }
        let (_, shared) = victim?;
        shared.evicted.store(true, std::sync::atomic::Ordering::Relaxed);
        shared.wake();
        Some(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let key = Neighbourhood::from(self.shared.addr.ip());
        let mut inner = self.registry.lock();
        if let Some(place) = inner.slots.get_mut(self.slot) {
            *place = None;
        }
        inner.free.push(self.slot);
        if let Some(count) = inner.counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                inner.counts.remove(&key);
            }
        }
        inner.open -= 1;
        let last = inner.open == 0;
        drop(inner);
        self.registry.left.notify_one();
        if last {
            self.registry.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    fn limits(total: usize, per_address: usize) -> Limits {
        Limits { connections_max: total, connections_per_address_max: per_address, ..Limits::default() }
    }

    fn seat(registry: &Arc<Registry>, addr: &str, limits: &Limits) -> Result<Seat, Refusal> {
        let seat = registry.admit(addr.parse().unwrap(), limits, &Drain::new())?;
        seat.shared.in_flight.store(1, Relaxed);
        Ok(seat)
    }

    #[test]
    fn an_address_has_its_cap_and_an_ipv6_client_its_network() {
        let (registry, limits) = (Arc::default(), limits(10, 1));
        let _one = seat(&registry, "10.0.0.1:1", &limits).unwrap();
        assert_eq!(seat(&registry, "10.0.0.1:2", &limits).err(), Some(Refusal::Address));
        assert_eq!(seat(&registry, "[::ffff:10.0.0.1]:2", &limits).err(), Some(Refusal::Address));
        let _two = seat(&registry, "[2001:db8::1]:1", &limits).unwrap();
        assert_eq!(seat(&registry, "[2001:db8::2]:1", &limits).err(), Some(Refusal::Address));
        assert!(seat(&registry, "[2001:db8:0:1::1]:1", &limits).is_ok());
    }

    #[test]
    fn a_trusted_address_has_only_the_cap_of_all() {
        let registry = Arc::default();
        let limits = Limits { trusted: Arc::new(|ip| ip.is_loopback()), ..limits(2, 1) };
        let _seats = [seat(&registry, "127.0.0.1:1", &limits).unwrap(), seat(&registry, "127.0.0.1:2", &limits).unwrap()];
        assert_eq!(seat(&registry, "127.0.0.1:3", &limits).err(), Some(Refusal::Total));
    }

    #[test]
    fn places_are_given_back() {
        let (registry, limits) = (Arc::<Registry>::default(), limits(1, 1));
        for _ in 0..3 {
            drop(seat(&registry, "10.0.0.1:1", &limits).unwrap());
        }
        let inner = registry.lock();
        assert_eq!((inner.open, inner.counts.len(), inner.slots.len()), (0, 0, 1));
    }

    #[tokio::test]
    async fn in_a_rush_no_more_are_accepted_than_leave() {
        let (registry, limits) = (Arc::<Registry>::default(), limits(1, 100));
        // Idle ones: each gives way to the next, and none has left yet.
        let idle = |number: usize| registry.admit(format!("10.0.0.1:{number}").parse().unwrap(), &limits, &Drain::new()).unwrap();
        let mut seats: Vec<Seat> = (0..1 + LEAVING_MAX).map(idle).collect();
        registry.relieved(1).await;
        seats.push(idle(100));
        let waiting = {
            let registry = registry.clone();
            tokio::spawn(async move { registry.relieved(1).await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "too many have not left");
        drop(seats.remove(0));
        waiting.await.unwrap();
        seats.push(idle(101));
        let begun = std::time::Instant::now();
        registry.relieved(1).await;
        assert!(begun.elapsed() >= LEAVING, "who is stuck is waited for a moment");
    }

    #[test]
    fn who_waits_for_its_client_gives_way_and_who_is_served_does_not() {
        let (registry, limits) = (Arc::default(), limits(2, 2));
        let busy = seat(&registry, "10.0.0.1:1", &limits).unwrap();
        let idle = seat(&registry, "10.0.0.1:2", &limits).unwrap();
        idle.shared.in_flight.store(0, Relaxed);
        let _third = seat(&registry, "10.0.0.1:3", &limits).unwrap();
        assert!(idle.shared.evicted.load(Relaxed) && !busy.shared.evicted.load(Relaxed));
        // It has not left yet, and cannot give way twice.
        assert_eq!(seat(&registry, "10.0.0.1:4", &limits).err(), Some(Refusal::Address));
    }
}
