//! A cluster: which node counts which key, and how that is learned anew.
//!
//! Every node has a breaker and a way back of its own, so one that is silent costs nobody but its own keys their count. Who counts what is asked of all nodes
//! that answer, and what most of them say is believed: one that was cut off and comes back may hold an old map for a while.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::ConnectionLike;
use redis::{FromRedisValue, ToRedisArgs, Value};
use tokio::time::timeout;

use super::address::Place;
use super::line::Line;
use super::node::{CONNECT_TIMEOUT, Node, Patience, Question, Shared, Unanswered, keep};

const SLOTS: u16 = 16_384;
/// Between two looks at the map: while all is well, and while something is not. A node that took over is found in the time of the second.
const LOOK: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(200));
/// Between two looks whatever happens.
const LOOK_MIN: Duration = Duration::from_millis(20);

/// The nodes of a cluster.
pub(super) struct Cluster {
    shared: Arc<Shared>,
    map: RwLock<Arc<Map>>,
    /// Why there is no map, as of one of the nodes that the settings name.
    unseen: RwLock<Option<String>>,
}

/// Nodes that are called, each by a task of its own. The specification of the cluster recommends no more.
const NODES_MAX: usize = 1_000;

/// Who counts what. Ranges are in their order.
#[derive(Default)]
struct Map {
    ranges: Vec<(Range, Arc<Node>)>,
    /// Those of the ranges, each once.
    nodes: Vec<Arc<Node>>,
}

/// Slots from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Range {
    first: u16,
    last: u16,
}

impl Map {
    fn of(&self, slot: u16) -> Option<&Arc<Node>> {
        let (range, node) = &self.ranges[self.ranges.partition_point(|(range, _)| range.last < slot)..].first()?;
        (range.first <= slot).then_some(node)
    }

    fn at(&self, place: &Place) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.place == *place)
    }

    /// Has every slot somebody who counts?
    fn is_whole(&self) -> bool {
        self.ranges.iter().map(|(range, _)| u32::from(range.last - range.first) + 1).sum::<u32>() == u32::from(SLOTS)
    }
}

impl Cluster {
    /// Finds the nodes and connects to them, or goes on trying.
    pub(super) async fn open(shared: Arc<Shared>) -> Arc<Self> {
        let cluster = Arc::new(Self { shared, map: RwLock::default(), unseen: RwLock::default() });
        let nodes = cluster.look().await;
        join_all(nodes.iter().map(|node| node.come(1))).await;
        for node in nodes {
            tokio::spawn(keep(Arc::downgrade(&node)));
        }
        if let Some(cause) = cluster.cause() {
            tracing::warn!(cause, "Redis does not answer as a whole; every instance counts by itself what is missing");
        }
        tokio::spawn(follow(Arc::downgrade(&cluster)));
        cluster
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Are all nodes asked that count anything?
    pub(super) fn answers(&self) -> bool {
        let map = self.map();
        map.is_whole() && map.nodes.iter().all(|node| node.answers())
    }

    /// Why not.
    pub(super) fn cause(&self) -> Option<String> {
        let map = self.map();
        if map.ranges.is_empty() {
            return self.unseen.read().unwrap_or_else(PoisonError::into_inner).clone();
        }
        let out = map.nodes.iter().find(|node| !node.answers());
        let cause = |node: &Arc<Node>| format!("{}: {}", node.place, node.cause().unwrap_or_else(|| "not connected yet".to_owned()));
        out.map(cause).or_else(|| (!map.is_whole()).then(|| "nobody in the cluster counts a part of the keys".to_owned()))
    }

    /// Asks the node that counts these keys, and once more where it sends us.
    pub(super) async fn ask<T: FromRedisValue, A: ToRedisArgs>(&self, question: &Question<'_, A>, patience: Patience) -> Result<T, Unanswered> {
        let map = self.map();
        let slot = slot(question.keys.first().copied().unwrap_or_default());
        let node = map.of(slot).ok_or(Unanswered::Spared)?;
        let (place, sent_here) = match node.ask(question, patience, false).await {
            Err(Unanswered::Moved(place)) => {
                self.shared.stale.notify_one();
                (place, false)
            }
            Err(Unanswered::Ask(place)) => (place, true),
            answer => return answer,
        };
        // One that is not known yet is met at the next look.
        let Some(node) = map.at(&place) else {
            self.shared.stale.notify_one();
            return Err(Unanswered::Failed);
        };
        node.ask(question, patience, sent_here).await
    }

    /// Learns who counts what. Gives the nodes that are new.
    async fn look(&self) -> Vec<Arc<Node>> {
        let known = self.map();
        let asked = known.nodes.iter().filter_map(|node| Some((node.place.clone(), node.line()?)));
        let mut views = join_all(asked.map(|(place, line)| self.view(place, line))).await;
        if views.iter().all(Option::is_none) {
            let seeds = self.shared.address.places.iter().map(|place| self.seen_from(place));
            views = join_all(seeds).await;
        }
        let mut votes: HashMap<Vec<(Range, Place)>, usize> = HashMap::new();
        for view in views.into_iter().flatten() {
            *votes.entry(view).or_default() += 1;
        }
        match votes.into_iter().max_by_key(|(_, votes)| *votes) {
            Some((view, _)) => self.learn(&known, view),
            None => Vec::new(),
        }
    }

    /// What the node that the settings name says of who counts what.
    async fn seen_from(&self, place: &Place) -> Option<Vec<(Range, Place)>> {
        let connecting = timeout(CONNECT_TIMEOUT, Line::connect(place, &self.shared.address)).await;
        let cause = match connecting.unwrap_or_else(|_| Err("no connection in a second".to_owned())) {
            Ok(line) => match self.view(place.clone(), line).await {
                Some(view) => return Some(view),
                None => "it knows no cluster".to_owned(),
            },
            Err(cause) => cause,
        };
        *self.unseen.write().unwrap_or_else(PoisonError::into_inner) = Some(format!("{place}: {cause}"));
        None
    }

    /// What this node says of who counts what.
    async fn view(&self, place: Place, mut line: Line) -> Option<Vec<(Range, Place)>> {
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("SLOTS");
        let answer = timeout(self.shared.wait, line.connection.req_packed_command(&slots)).await.ok()?.ok()?.extract_error().ok()?;
        let Value::Array(ranges) = answer else { return None };
        let mut view = ranges.into_iter().map(|range| range_of(range, &place.host)).collect::<Option<Vec<_>>>()?;
        view.sort_unstable();
        let places: HashSet<&Place> = view.iter().map(|(_, place)| place).collect();
        (1..=NODES_MAX).contains(&places.len()).then_some(view)
    }

    fn learn(&self, known: &Map, view: Vec<(Range, Place)>) -> Vec<Arc<Node>> {
        // Nothing is new, as nearly always; the names below take long to find.
        if known.ranges.iter().map(|(range, node)| (range, &node.place)).eq(view.iter().map(|(range, place)| (range, place))) {
            return Vec::new();
        }
        let (mut map, mut new) = (Map::default(), Vec::new());
        for (range, place) in view {
            let node = map.at(&place).cloned().unwrap_or_else(|| {
                let proof = self.name_within(range);
                let node = match known.at(&place) {
                    Some(node) => {
                        node.prove_with(proof);
                        Arc::clone(node)
                    }
                    None => {
                        let node = Node::new(place, Arc::clone(&self.shared), proof);
                        new.push(Arc::clone(&node));
                        node
                    }
                };
                map.nodes.push(Arc::clone(&node));
                node
            });
            map.ranges.push((range, node));
        }
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
        new
    }

    /// A name of ours in one of these slots.
    fn name_within(&self, Range { first, last }: Range) -> String {
        let names = (0u32..).map(|number| format!("{}:proof:{number}", self.shared.prefix));
        names.take(1 << 18).find(|name| (first..=last).contains(&slot(name))).unwrap_or_default()
    }
}

/// Looks again now and then, and soon when something is missing, as long as somebody might ask.
async fn follow(cluster: Weak<Cluster>) {
    let mut said = cluster.upgrade().and_then(|cluster| cluster.cause());
    loop {
        let Some(this) = cluster.upgrade() else { return };
        let pause = if this.answers() { LOOK.0 } else { LOOK.1 };
        let _ = timeout(pause, this.shared.stale.notified()).await;
        for node in this.look().await {
            tokio::spawn(meet(node));
        }
        // Nodes that are known speak for themselves.
        let unseen = this.map().ranges.is_empty().then(|| this.cause()).flatten();
        if let Some(cause) = unseen
            && said.as_ref() != Some(&cause)
        {
            tracing::warn!(cause, "the Redis Cluster does not answer; every instance counts by itself until it does");
            said = Some(cause);
        }
        drop(this);
        tokio::time::sleep(LOOK_MIN).await;
    }
}

/// Connects to a node that was found later, for as long as somebody else knows it: one that leaves the map is not called any more.
async fn meet(node: Arc<Node>) {
    node.come(1).await;
    let known = Arc::downgrade(&node);
    drop(node);
    keep(known).await;
}

/// `[first, last, [host, port, ...], replicas...]`, as the node at `here` says it.
fn range_of(value: Value, here: &str) -> Option<(Range, Place)> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let (first, last) = (u16::from_redis_value(parts.next()?).ok()?, u16::from_redis_value(parts.next()?).ok()?);
    let Value::Array(master) = parts.next()? else { return None };
    let mut master = master.into_iter();
    // A node that does not know its own name says nothing: it is the one by which it was reached.
    let host = Option::<String>::from_redis_value(master.next()?).ok()?.filter(|host| !host.is_empty()).unwrap_or_else(|| here.to_owned());
    let port = u16::from_redis_value(master.next()?).ok()?;
    (first <= last && last < SLOTS).then_some((Range { first, last }, Place { host, port }))
}

/// The slot of a key: of what stands in its first braces, if something does.
fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag).filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(key).as_bytes()) % SLOTS
}

/// CRC-16/XMODEM, as the specification of the cluster has it.
fn crc16(bytes: &[u8]) -> u16 {
    let step = |crc: u16, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
    bytes.iter().fold(0, |crc, byte| (0..8).fold(crc ^ u16::from(*byte) << 8, step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{Address, TlsFiles};

    #[tokio::test]
    async fn a_node_that_nobody_knows_any_more_is_not_called_any_more() {
        let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let address = Address::new(&format!("redis://{nobody},redis://{nobody}").into(), &TlsFiles::default()).unwrap();
        let shared = Arc::new(Shared::new(address, "test", Duration::from_millis(10)));
        let node = Node::new(Place { host: "127.0.0.1".to_owned(), port: nobody.port() }, shared, String::new());
        let known = Arc::downgrade(&node);
        let calling = tokio::spawn(meet(Arc::clone(&node)));
        drop(node);
        timeout(Duration::from_secs(30), calling).await.expect("it ends").unwrap();
        assert_eq!(known.strong_count(), 0);
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!([slot("foo"), slot("bar"), slot("")], [12_182, 5_061, 0]);
        assert_eq!(slot("{user1000}.following"), slot("{user1000}.followers"));
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
        assert_eq!(slot("foo{bar}{zap}"), slot("bar"));
        assert_eq!(slot("foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS, "empty braces are none");
    }

    #[test]
    fn a_range_is_read_with_the_host_that_it_names_or_the_one_that_was_asked() {
        let master = |host: Value| Value::Array(vec![host, Value::Int(7000), Value::BulkString(b"id".to_vec()), Value::Array(vec![])]);
        let range = |first, last, host| range_of(Value::Array(vec![Value::Int(first), Value::Int(last), master(host)]), "asked");
        let named = Value::BulkString(b"redis-1.internal".to_vec());
        let place = |host: &str| Place { host: host.to_owned(), port: 7000 };
        assert_eq!(range(0, 5_460, named.clone()), Some((Range { first: 0, last: 5_460 }, place("redis-1.internal"))));
        assert_eq!(range(0, 5_460, Value::Nil).unwrap().1, place("asked"));
        assert_eq!(range(0, 5_460, Value::BulkString(vec![])).unwrap().1, place("asked"));
        assert_eq!(range(5, 4, named.clone()), None);
        assert_eq!(range(0, 16_384, named.clone()), None);
        assert_eq!(range(-1, 3, named), None);
    }
}
