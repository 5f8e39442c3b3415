//! Control messages and what they do to a connection's streams.

use super::faults::Harm;
use super::ledger::Violation;
use super::request::{self, Ask};
use super::rules::{Form, Occasion};
use super::text;
use super::venue::ConnId;
use super::{Due, Exchange, Reply, Subscription};
use crate::time::UtcMs;
use std::collections::BTreeSet;

/// The request is over the limit of streams.
#[derive(Debug)]
pub(super) struct TooMany;

impl Exchange {
    /// Obeys a control message, or refuses it.
    pub(super) fn control(&mut self, conn: ConnId, message: &str, wire_bytes: usize) {
        self.record(conn, |record| record.messages += 1);
        if wire_bytes > self.config.limits.control_bytes {
            // Swallowed: no reply, no effect.
            self.ledger.violation(UtcMs(self.now), Some(conn), Violation::Oversized);
            return;
        }
        let request = match request::control(message, self.config.market) {
            Ok(request) => request,
            Err(refused) => {
                self.ledger.violation(UtcMs(self.now), Some(conn), Violation::BadRequest);
                self.reply(conn, text::error_bare(refused.code, &refused.msg), None, "");
                return;
            }
        };
        let id = request.id;
        match request.ask {
            Ask::Subscribe(streams) => {
                self.record(conn, |record| record.subscribes += 1);
                self.on_subscribe(conn, streams, &id);
            }
            Ask::Unsubscribe(streams) => {
                for stream in streams {
                    self.unlisten(conn, &stream);
                    if let Some(open) = self.conns.get_mut(&conn) {
                        open.streams.remove(&stream);
                    }
                }
                self.acknowledge(conn, "null", &id);
            }
            Ask::List => {
                let streams = self.conns.get(&conn).map(|open| &open.streams);
                let mut names: Vec<_> = streams.into_iter().flatten().collect();
                names.sort_by_key(|(_, subscription)| subscription.ordinal);
                let names = names.into_iter().map(|(name, _)| serde_json::Value::from(name.as_str()).to_string());
                let result = text::array(names);
                self.acknowledge(conn, &result, &id);
            }
            Ask::SetCombined(combined) => {
                if let Some(open) = self.conns.get_mut(&conn) {
                    open.combined = combined;
                }
                self.acknowledge(conn, "null", &id);
            }
            Ask::GetCombined => {
                let combined = self.conns.get(&conn).is_some_and(|open| open.combined);
                self.acknowledge(conn, if combined { "true" } else { "false" }, &id);
            }
        }
    }

    fn on_subscribe(&mut self, conn: ConnId, streams: Vec<String>, id: &str) {
        let Some(ordinal) = self.conns.get(&conn).map(|open| open.ordinal) else { return };
        let now = UtcMs(self.now);
        let all = streams.join(" ");
        if let Some((Harm::CloseOnSubscribe { code }, _)) = self.rules.strike(Occasion::Subscribe, &all, ordinal, now) {
            let code = *code;
            self.close(conn, code, "");
            return;
        }
        if let Some((Harm::AckError { code, msg, bare }, _)) =
            self.rules.strike(Occasion::SubscribeError, &all, ordinal, now)
        {
            let text = if *bare { text::error_bare(*code, msg) } else { text::error_with_id(*code, msg, id) };
            self.reply(conn, text, None, &all);
            return;
        }
        match self.subscribe(conn, streams, Form::Message) {
            Ok(()) => self.acknowledge_about(conn, "null", id, &all),
            Err(TooMany) => self.too_many_streams(conn, id),
        }
    }

    /// Adds streams to a connection, all or none. Names nobody knows are as good as any; what is subscribed already stays
    /// as it is, unless a fault wants to be asked twice.
    pub(super) fn subscribe(&mut self, conn: ConnId, streams: Vec<String>, form: Form) -> Result<(), TooMany> {
        let Some(open) = self.conns.get(&conn) else { return Ok(()) };
        let (ordinal, now) = (open.ordinal, UtcMs(self.now));
        let asked = streams.len() as u64;
        let mut seen = BTreeSet::new();
        let (again, new): (Vec<String>, Vec<String>) = streams
            .into_iter()
            .filter(|stream| seen.insert(stream.clone()))
            .partition(|stream| open.streams.contains_key(stream));
        let too_many = open.streams.len() + new.len() > self.config.limits.streams;
        self.record(conn, |record| record.streams_asked += asked);
        if too_many {
            return Err(TooMany);
        }
        for stream in again {
            self.ask_again(conn, &stream);
        }
        let mut silences = BTreeSet::new();
        for stream in new {
            let mute = self.rules.mute(&stream, ordinal, form, now);
            match &mute {
                Some(mute) if mute.from <= now.0 => self.rules.fell_silent(mute, &stream, ordinal),
                Some(mute) => {
                    silences.insert(mute.from);
                    self.listen(conn, &stream);
                }
                None => self.listen(conn, &stream),
            }
            if let Some(open) = self.conns.get_mut(&conn) {
                open.subscribed += 1;
                open.streams.insert(stream, Subscription { ordinal: open.subscribed, mute });
            }
        }
        for at in silences {
            self.at(at, Due::Silence(conn));
        }
        Ok(())
    }

    /// A subscription is asked for once more.
    fn ask_again(&mut self, conn: ConnId, stream: &str) {
        let Some(open) = self.conns.get_mut(&conn) else { return };
        let Some(subscription) = open.streams.get_mut(stream) else { return };
        if subscription.mute.take_if(|mute| mute.from <= self.now && mute.ends_when_asked_again()).is_some() {
            self.listen(conn, stream);
        }
    }

    /// The subscriptions whose time that is fall silent.
    pub(super) fn fall_silent(&mut self, conn: ConnId) {
        let Some(open) = self.conns.get(&conn) else { return };
        let (ordinal, now) = (open.ordinal, self.now);
        let silent = |(name, subscription): (&String, &Subscription)| {
            let mute = subscription.mute.filter(|mute| mute.from == now)?;
            Some((name.clone(), mute))
        };
        for (stream, mute) in open.streams.iter().filter_map(silent).collect::<Vec<_>>() {
            self.unlisten(conn, &stream);
            self.rules.fell_silent(&mute, &stream, ordinal);
        }
    }

    /// Over the cap: an error, then the end; everything subscribed before is lost with it.
    pub(super) fn too_many_streams(&mut self, conn: ConnId, id: &str) {
        self.ledger.violation(UtcMs(self.now), Some(conn), Violation::TooManyStreams);
        let text = text::error_with_id(4, "Too many subscriptions", id);
        self.reply(conn, text, Some((1008, "Invalid request")), "");
    }

    fn acknowledge(&mut self, conn: ConnId, result: &str, id: &str) {
        self.acknowledge_about(conn, result, id, "");
    }

    fn acknowledge_about(&mut self, conn: ConnId, result: &str, id: &str, about: &str) {
        let Some(ordinal) = self.conns.get(&conn).map(|open| open.ordinal) else { return };
        let now = UtcMs(self.now);
        if self.rules.strike(Occasion::Ack, about, ordinal, now).is_some() {
            return;
        }
        let wrong = self.rules.strike(Occasion::AckId, about, ordinal, now).is_some();
        self.reply(conn, text::reply(result, if wrong { "999999999" } else { id }), None, about);
    }

    /// Sends a reply after the usual delay, never before an earlier one.
    fn reply(&mut self, conn: ConnId, text: String, close: Option<(u16, &'static str)>, about: &str) {
        let (least, most) = self.config.reply_delay_ms;
        let delay = self.rng.i64(least.max(0)..=most.max(least).max(0));
        let Some(ordinal) = self.conns.get(&conn).map(|open| open.ordinal) else { return };
        let extra = match self.rules.strike(Occasion::AckTime, about, ordinal, UtcMs(self.now)) {
            Some((Harm::AckLate { ms }, _)) => *ms,
            _ => 0,
        };
        let Some(open) = self.conns.get_mut(&conn) else { return };
        let due = (self.now + delay + extra).max(open.replies.back().map_or(0, |reply| reply.due));
        open.replies.push_back(Reply { due, text: text.into(), close });
        self.at(due, Due::Reply(conn));
        self.send_replies(conn);
    }

    /// Sends the replies that are due.
    pub(super) fn send_replies(&mut self, conn: ConnId) {
        while let Some(open) = self.conns.get_mut(&conn) {
            let Some(reply) = open.replies.pop_front_if(|reply| reply.due <= self.now) else { return };
            self.actions.push_back((conn, super::venue::Action::Text(reply.text)));
            if let Some((code, reason)) = reply.close {
                self.close(conn, code, reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::faults::Fault;
    use super::super::setup::ExchangeConfig;
    use super::super::venue::{Action, RestRequest};
    use super::*;

    const START: i64 = 1_795_608_000_000;

    fn exchange(fault: Fault) -> (Exchange, ConnId) {
        let config = ExchangeConfig { faults: vec![fault], reply_delay_ms: (5, 5), ..ExchangeConfig::default() };
        let mut exchange = Exchange::new(config, UtcMs(START));
        let conn = exchange.open("/market/ws", UtcMs(START)).unwrap();
        (exchange, conn)
    }

    fn subscribe(exchange: &mut Exchange, conn: ConnId, stream: &str, id: u32) {
        let text = format!(r#"{{"method":"SUBSCRIBE","params":["{stream}"],"id":{id}}}"#);
        let now = exchange.now();
        exchange.on_text(conn, &text, text.len() + 8, now);
    }

    fn actions(exchange: &mut Exchange, after_ms: i64) -> Vec<Action> {
        let until = exchange.now().0 + after_ms;
        exchange.advance(UtcMs(until));
        std::iter::from_fn(|| exchange.poll_action()).map(|(_, action)| action).collect()
    }

    #[test]
    fn a_late_reply_delays_the_later_ones_and_the_data_comes_first() {
        let (mut exchange, conn) = exchange(Fault::new(Harm::AckLate { ms: 10_000 }).times(1));
        subscribe(&mut exchange, conn, "btcusdt@markPrice@1s", 1);
        subscribe(&mut exchange, conn, "nothing", 2);
        let early = actions(&mut exchange, 10_004);
        assert!(
            early.len() >= 9
                && early.iter().all(|action| matches!(action, Action::Text(text) if text.contains("markPriceUpdate")))
        );
        let late = actions(&mut exchange, 1);
        let reply = |id| Action::Text(text::reply("null", id).into());
        assert_eq!(late[late.len() - 2..], [reply("1"), reply("2")]);
    }

    #[test]
    fn a_subscription_can_be_the_end() {
        let (mut exchange, conn) = exchange(Fault::new(Harm::CloseOnSubscribe { code: 1000 }).on("ethusdt"));
        subscribe(&mut exchange, conn, "quietusdt@aggTrade", 1);
        subscribe(&mut exchange, conn, "ethusdt@aggTrade", 2);
        subscribe(&mut exchange, conn, "ethusdt@aggTrade", 3);
        assert_eq!(actions(&mut exchange, 1_000), [Action::Close { code: 1000, reason: "" }]);
        assert_eq!(exchange.connections().count(), 0);
    }

    #[test]
    fn closing_pushes_can_be_missing_and_rest_can_answer_nonsense() {
        let (mut exchange, conn) = exchange(Fault::new(Harm::DropClosing));
        let answer = Harm::RestAnswer { status: 502, retry_after_s: None, body: "<html>".to_owned() };
        exchange.set_fault(Fault::new(answer).on("/klines").times(1));
        subscribe(&mut exchange, conn, "btcusdt@kline_1m", 1);
        let all = actions(&mut exchange, 200_000);
        let closing = |action: &&Action| matches!(action, Action::Text(text) if text.contains(r#""x":true"#));
        assert!(all.len() > 100 && all.iter().find(closing).is_none());
        let mut ask = |path: &str| {
            let request = RestRequest {
                method: "GET".to_owned(),
                path: path.to_owned(),
                query: "symbol=BTCUSDT&interval=1m".to_owned(),
                headers: Vec::new(),
                body: Vec::new(),
            };
            let now = exchange.now();
            exchange.rest(&request, now).status
        };
        assert_eq!([ask("/fapi/v1/klines"), ask("/fapi/v1/klines")], [502, 200]);
    }
}
