//! From the streams to the connections: one payload to everybody who listens, and what goes wrong with it on the way.

use super::Exchange;
use super::faults::Harm;
use super::fields;
use super::rules::Occasion;
use super::text;
use super::venue::{Action, ConnId};
use crate::time::UtcMs;
use std::rc::Rc;

impl Exchange {
    /// Sends a payload to everybody who listens, wrapped or not as they want it.
    pub(super) fn publish(&mut self, channel: usize, raw: &str, closing: bool) {
        // A frame that was kept back is still to come, even if the rule that did it is no more.
        let badly = self.rules.threaten_frames(UtcMs(self.now)) || !self.channels[channel].held.is_empty();
        let (mut bare, mut wrapped): (Option<Rc<str>>, Option<Rc<str>>) = (None, None);
        for at in 0..self.channels[channel].listeners.len() {
            let conn = self.channels[channel].listeners[at];
            let Some((combined, ordinal)) = self.conns.get(&conn).map(|open| (open.combined, open.ordinal)) else {
                continue;
            };
            if badly {
                self.publish_badly(channel, conn, ordinal, combined, raw, closing);
                continue;
            }
            let shared = if combined { &mut wrapped } else { &mut bare };
            let text = shared.get_or_insert_with(|| frame(&self.channels[channel].name, raw, combined));
            self.actions.push_back((conn, Action::Text(Rc::clone(text))));
        }
    }

    /// The same for one listener, with all that can go wrong.
    fn publish_badly(&mut self, channel: usize, conn: ConnId, ordinal: u64, combined: bool, raw: &str, closing: bool) {
        let name = Rc::clone(&self.channels[channel].name);
        let now = UtcMs(self.now);
        let rules = &mut self.rules;
        if rules.strike(Occasion::Frame, &name, ordinal, now).is_some()
            || closing && rules.strike(Occasion::ClosingFrame, &name, ordinal, now).is_some()
        {
            return;
        }
        let malformed: Option<Rc<str>> = match rules.strike(Occasion::Malformed, &name, ordinal, now) {
            Some((Harm::Malformed(texts), strike)) => {
                texts.get((strike as usize - 1) % texts.len().max(1)).map(|text| text.as_str().into())
            }
            _ => None,
        };
        let without = match rules.strike(Occasion::WithoutKeys, &name, ordinal, now) {
            Some((Harm::WithoutKeys(keys), _)) => keys.clone(),
            _ => Vec::new(),
        };
        let mut strikes = |occasion| rules.strike(occasion, &name, ordinal, now).is_some();
        let extra = strikes(Occasion::ExtraKeys);
        let shuffled = strikes(Occasion::ShuffledKeys);
        let twice = strikes(Occasion::Duplicate);
        let reorder = strikes(Occasion::Reorder);
        let mut send = |text: Rc<str>| self.actions.push_back((conn, Action::Text(text)));
        if let Some(text) = malformed {
            send(text);
        }
        let changed = (extra || shuffled || !without.is_empty())
            .then(|| rewrite(raw, &without, extra, shuffled.then_some(&mut self.rng)))
            .flatten();
        let text = frame(&name, changed.as_deref().unwrap_or(raw), combined);
        if reorder && !self.channels[channel].held.contains_key(&conn) {
            self.channels[channel].held.insert(conn, text);
            return;
        }
        send(Rc::clone(&text));
        if twice {
            send(text);
        }
        if let Some(held) = self.channels[channel].held.remove(&conn) {
            send(held);
        }
    }
}

fn frame(name: &str, raw: &str, combined: bool) -> Rc<str> {
    if combined { text::combined(name, raw).into() } else { raw.into() }
}

/// The same payload with keys left out, added or in another order. `None` if it is no object.
fn rewrite(raw: &str, without: &[&str], extra: bool, mut shuffle: Option<&mut fastrand::Rng>) -> Option<String> {
    let mut all: Vec<(String, String)> = fields::fields(raw)?
        .into_iter()
        .filter(|(key, _)| !without.contains(key))
        .map(|(key, value)| {
            let inner = if key == "k" { rewrite(value, without, extra, shuffle.as_deref_mut()) } else { None };
            (key.to_owned(), inner.unwrap_or_else(|| value.to_owned()))
        })
        .collect();
    if extra {
        // Known names at a depth where they mean nothing.
        let nested = r#"{"e":"aggTrade","s":"NOSUCHUSDT","a":1,"p":"0.0","k":{"x":true,"deep":[{"T":[1,2,{}]}]}}"#;
        all.insert(all.len() / 2, ("zz".to_owned(), nested.to_owned()));
        all.push(("note".to_owned(), r#""\"}, \\ \u00e9""#.to_owned()));
    }
    if let Some(rng) = shuffle {
        rng.shuffle(&mut all);
    }
    Some(fields::object(&all))
}
