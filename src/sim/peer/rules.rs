//! The exchange as its connections see it.

use crate::sim::exchange::{Action, ConnId, Exchange, Refusal, RestAnswer, RestRequest};
use crate::time::UtcMs;

/// The exchange as its connections see it.
pub trait Rules {
    /// A WebSocket upgrade for this request target, already valid as an upgrade.
    ///
    /// # Errors
    /// The exchange's refusal, which becomes an HTTP status.
    fn open(&mut self, target: &str, utc: UtcMs) -> Result<ConnId, Refusal>;
    /// A text message arrived; `wire_bytes` is its size with frame header and mask.
    fn on_text(&mut self, conn: ConnId, text: &str, wire_bytes: usize, utc: UtcMs);
    /// The client pinged, and was answered.
    fn on_ping(&mut self, conn: ConnId, utc: UtcMs);
    /// The client sent a pong.
    fn on_pong(&mut self, conn: ConnId, payload: &[u8], utc: UtcMs);
    /// The client ended the connection, or broke it.
    fn on_gone(&mut self, conn: ConnId);
    /// When [`advance`](Self::advance) has something to do.
    fn next_due(&self) -> UtcMs;
    /// Time has passed.
    fn advance(&mut self, utc: UtcMs);
    /// What the exchange does next, and to which connection.
    fn poll_action(&mut self) -> Option<(ConnId, Action)>;
    /// One REST request.
    fn rest(&mut self, request: &RestRequest, utc: UtcMs) -> RestAnswer;
}

impl Rules for Exchange {
    fn open(&mut self, target: &str, utc: UtcMs) -> Result<ConnId, Refusal> {
        self.open(target, utc)
    }
    fn on_text(&mut self, conn: ConnId, text: &str, wire_bytes: usize, utc: UtcMs) {
        self.on_text(conn, text, wire_bytes, utc);
    }
    fn on_ping(&mut self, conn: ConnId, utc: UtcMs) {
        self.on_ping(conn, utc);
    }
    fn on_pong(&mut self, conn: ConnId, payload: &[u8], utc: UtcMs) {
        self.on_pong(conn, payload, utc);
    }
    fn on_gone(&mut self, conn: ConnId) {
        self.on_gone(conn);
    }
    fn next_due(&self) -> UtcMs {
        self.next_due()
    }
    fn advance(&mut self, utc: UtcMs) {
        self.advance(utc);
    }
    fn poll_action(&mut self) -> Option<(ConnId, Action)> {
        self.poll_action()
    }
    fn rest(&mut self, request: &RestRequest, utc: UtcMs) -> RestAnswer {
        self.rest(request, utc)
    }
}
