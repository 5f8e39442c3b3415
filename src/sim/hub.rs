//! Many connections and the one exchange behind them, still without a socket.
//!
//! Whatever carries the bytes, the loop is the same: say what happened ([`accept`](Hub::accept),
//! [`received`](Hub::received), [`eof`](Hub::eof), [`gone`](Hub::gone), [`advance`](Hub::advance)), then visit each
//! connection named by [`poll_touched`](Hub::poll_touched), send its [`transmit`](Hub::transmit) and obey its
//! [`ending`](Hub::ending). Same calls, same order of visits: there is nothing random here.

use std::collections::{BTreeMap, VecDeque};

use super::exchange::ConnId;
use super::peer::{Ending, Peer, Rules, Stage, Tally};
use crate::time::UtcMs;

/// One accepted connection. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// The exchange and its connections.
#[derive(Debug)]
pub struct Hub<R> {
    rules: R,
    peers: BTreeMap<PeerId, Slot>,
    /// Which peer carries a WebSocket that the exchange knows.
    carriers: BTreeMap<ConnId, PeerId>,
    touched: VecDeque<PeerId>,
    accepted: u64,
    /// What passed through connections that are gone.
    past: Tally,
}

#[derive(Debug, Default)]
struct Slot {
    peer: Peer,
    /// Waiting in `Hub::touched`, so that it waits there once.
    touched: bool,
}

impl<R: Rules> Hub<R> {
    /// The exchange, before anyone came.
    pub fn new(rules: R) -> Self {
        Self {
            rules,
            peers: BTreeMap::new(),
            carriers: BTreeMap::new(),
            touched: VecDeque::new(),
            accepted: 0,
            past: Tally::default(),
        }
    }

    /// A client connected.
    pub fn accept(&mut self) -> PeerId {
        let id = PeerId(self.accepted);
        self.accepted += 1;
        self.peers.insert(id, Slot::default());
        id
    }

    /// Plaintext bytes of this client.
    pub fn received(&mut self, id: PeerId, bytes: &[u8], utc: UtcMs) {
        self.tell(id, |peer, rules| peer.received(bytes, rules, utc));
    }

    /// This client will send no more, but may still read.
    pub fn eof(&mut self, id: PeerId) {
        self.tell(id, |peer, rules| peer.eof(rules));
    }

    /// The connection is no more: what is queued for it is dropped.
    pub fn gone(&mut self, id: PeerId) {
        self.tell(id, |peer, rules| peer.eof(rules));
        if let Some(slot) = self.peers.remove(&id) {
            self.past += slot.peer.tally();
        }
    }

    /// When the exchange has something to do on its own.
    pub fn next_due(&self) -> UtcMs {
        self.rules.next_due()
    }

    /// Time has passed.
    pub fn advance(&mut self, utc: UtcMs) {
        self.rules.advance(utc);
        self.settle();
    }

    /// The exchange itself, to look at or to set faults; what it decides meanwhile is carried out.
    pub fn with<T>(&mut self, f: impl FnOnce(&mut R) -> T) -> T {
        let result = f(&mut self.rules);
        self.settle();
        result
    }

    /// The exchange, to look at.
    pub fn rules(&self) -> &R {
        &self.rules
    }

    /// The next connection with new output or a new ending; each is named once until it is touched again.
    pub fn poll_touched(&mut self) -> Option<PeerId> {
        while let Some(id) = self.touched.pop_front() {
            if let Some(slot) = self.peers.get_mut(&id) {
                slot.touched = false;
                return Some(id);
            }
        }
        None
    }

    /// Bytes for this client.
    pub fn transmit(&self, id: PeerId) -> &[u8] {
        self.peers.get(&id).map_or(&[], |slot| slot.peer.transmit())
    }

    /// The first `n` bytes of [`transmit`](Self::transmit) have left.
    pub fn transmitted(&mut self, id: PeerId, n: usize) {
        if let Some(slot) = self.peers.get_mut(&id) {
            slot.peer.transmitted(n);
        }
    }

    /// How this connection is to be ended, once that is decided. A connection that is gone was cut.
    pub fn ending(&self, id: PeerId) -> Option<Ending> {
        self.peers.get(&id).map_or(Some(Ending::Cut), |slot| slot.peer.ending())
    }

    /// How far this connection has come.
    pub fn stage(&self, id: PeerId) -> Stage {
        self.peers.get(&id).map_or(Stage::Http, |slot| slot.peer.stage())
    }

    /// The exchange's name for this connection's WebSocket, while both sides hold it open.
    pub fn conn(&self, id: PeerId) -> Option<ConnId> {
        self.peers.get(&id).and_then(|slot| slot.peer.conn())
    }

    /// The connection that carries this WebSocket.
    pub fn carrier(&self, conn: ConnId) -> Option<PeerId> {
        self.carriers.get(&conn).copied()
    }

    /// All connections that are not gone, oldest first.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.peers.keys().copied()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// What passed through all connections so far.
    pub fn tally(&self) -> Tally {
        let mut tally = self.past;
        for slot in self.peers.values() {
            tally += slot.peer.tally();
        }
        tally
    }

    /// What passed through this connection so far.
    pub fn tally_of(&self, id: PeerId) -> Tally {
        self.peers.get(&id).map_or_else(Tally::default, |slot| slot.peer.tally())
    }

    /// The exchange goes away: every WebSocket is closed as a server does that shuts down, everything else ends.
    pub fn close_all(&mut self) {
        let ids: Vec<_> = self.peers.keys().copied().collect();
        for id in ids {
            self.tell(id, |peer, rules| peer.shut_down(rules));
        }
    }

    fn tell(&mut self, id: PeerId, f: impl FnOnce(&mut Peer, &mut R)) {
        let Some(slot) = self.peers.get_mut(&id) else { return };
        let before = slot.peer.conn();
        f(&mut slot.peer, &mut self.rules);
        let after = slot.peer.conn();
        if before != after {
            if let Some(conn) = before {
                self.carriers.remove(&conn);
            }
            if let Some(conn) = after {
                self.carriers.insert(conn, id);
            }
        }
        self.touch(id);
        self.settle();
    }

    /// Carries out what the exchange decided. Telling it of a slow client may make it decide more.
    fn settle(&mut self) {
        while let Some((conn, action)) = self.rules.poll_action() {
            // For a client that left meanwhile there is nothing to do.
            let Some(&id) = self.carriers.get(&conn) else { continue };
            let Some(slot) = self.peers.get_mut(&id) else { continue };
            if let Some(conn) = slot.peer.perform(action) {
                self.rules.on_gone(conn);
            }
            if slot.peer.conn().is_none() {
                self.carriers.remove(&conn);
            }
            self.touch(id);
        }
    }

    fn touch(&mut self, id: PeerId) {
        if let Some(slot) = self.peers.get_mut(&id)
            && !slot.touched
        {
            slot.touched = true;
            self.touched.push_back(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::Action;
    use super::super::peer::tests::{Clerk, UPGRADE, UTC, masked};
    use super::*;
    use std::rc::Rc;

    fn touched(hub: &mut Hub<Clerk>) -> Vec<u64> {
        std::iter::from_fn(|| hub.poll_touched()).map(|id| id.0).collect()
    }

    fn drain(hub: &mut Hub<Clerk>, id: PeerId) -> Vec<u8> {
        let bytes = hub.transmit(id).to_vec();
        hub.transmitted(id, bytes.len());
        bytes
    }

    fn open(hub: &mut Hub<Clerk>) -> PeerId {
        let id = hub.accept();
        hub.received(id, UPGRADE.as_bytes(), UTC);
        assert!(drain(hub, id).starts_with(b"HTTP/1.1 101 "));
        id
    }

    #[test]
    fn what_the_exchange_says_reaches_the_right_client_and_each_is_named_once() {
        let mut hub = Hub::new(Clerk::default());
        let (a, b) = (open(&mut hub), open(&mut hub));
        assert_eq!(touched(&mut hub), [0, 1]);
        let (of_a, of_b) = (hub.conn(a).unwrap(), hub.conn(b).unwrap());
        assert_eq!((hub.carrier(of_a), hub.carrier(of_b)), (Some(a), Some(b)));
        hub.with(|clerk| {
            for (conn, text) in [(of_b, "1"), (of_a, "2"), (of_b, "3"), (ConnId(99), "4")] {
                clerk.actions.push_back((conn, Action::Text(Rc::from(text))));
            }
        });
        assert_eq!(touched(&mut hub), [1, 0]);
        assert_eq!(drain(&mut hub, b), [0x81, 1, b'1', 0x81, 1, b'3']);
        assert_eq!(drain(&mut hub, a), [0x81, 1, b'2']);
        assert_eq!(touched(&mut hub), [] as [u64; 0]);
    }

    #[test]
    fn a_client_that_is_gone_is_forgotten_everywhere_and_still_counted() {
        let mut hub = Hub::new(Clerk::default());
        let (a, b) = (open(&mut hub), open(&mut hub));
        hub.received(a, &masked(0x81, b"hi"), UTC);
        let conn = hub.conn(a).unwrap();
        hub.gone(a);
        hub.gone(a);
        assert_eq!(hub.rules().told.iter().filter(|told| *told == "gone 1").count(), 1);
        assert_eq!((hub.carrier(conn), hub.ending(a), hub.transmit(a)), (None, Some(Ending::Cut), &[][..]));
        assert_eq!(hub.peers().collect::<Vec<_>>(), [b]);
        let tally = hub.tally();
        assert_eq!((hub.accepted(), tally.upgrades, tally.messages, tally.frames), (2, 2, 1, 1));
        assert_eq!(touched(&mut hub), [1]);
    }

    #[test]
    fn a_slow_client_is_cut_and_the_exchange_is_told() {
        let mut hub = Hub::new(Clerk::default());
        let id = open(&mut hub);
        let conn = hub.conn(id).unwrap();
        let text: Rc<str> = Rc::from("x".repeat(60_000));
        hub.with(|clerk| {
            for _ in 0..200 {
                clerk.actions.push_back((conn, Action::Text(Rc::clone(&text))));
            }
        });
        assert_eq!(hub.ending(id), Some(Ending::Cut));
        assert_eq!(hub.rules().told.last().unwrap(), "gone 1");
        assert_eq!(hub.carrier(conn), None);
        assert_eq!(hub.tally().slow, 1);
    }

    #[test]
    fn shutting_down_closes_with_1001() {
        let mut hub = Hub::new(Clerk::default());
        let (id, idle) = (open(&mut hub), hub.accept());
        hub.close_all();
        assert_eq!(drain(&mut hub, id)[..4], [0x88, 12, 0x03, 0xe9]);
        assert_eq!((hub.ending(id), hub.ending(idle)), (Some(Ending::Close), Some(Ending::Close)));
    }
}
