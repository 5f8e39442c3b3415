//! Streams over connections: asked for, acknowledged, and live only when their own data has come.
//!
//! One connection carries many streams. Each stream is proved, or fails, by itself; when none of a connection's streams
//! delivers, the connection is replaced. Nothing here waits: every step has a deadline and another place to go.
//!
//! Not here yet, and where it will be: staleness of single streams and the ladder that heals them (beside
//! [`judge`](self)), rotation and legs (a second [`Connection`] of the same name).

mod budget;
mod connection;
mod judge;
mod stream;

pub use connection::Connection;
pub use stream::{Stream, StreamState};

use super::layout::{self, SUBSCRIBE_BYTES_MAX, SUBSCRIBE_NAMES_MAX};
use super::tape::{Source, TapeEvent};
use super::{Applied, Market};
use crate::config::{Config, SubscribeBy};
use crate::net::{self, Ending, Incoming, Session, SessionEvent, Settings, Stage, State};
use crate::note::{Note, Notes};
use crate::time::{Instant, Now, Span};
use crate::wire::market::{self as wire, Decoded, Decoder, Reject, RejectKind, Reply};
use crate::wire::{Frame, Interval, StreamKind, Symbols};
use budget::ConnectBudget;
use connection::PendingAsk;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

/// Longest message that is read; real ones are below 200 KiB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Requests of one connection that wait for their answers.
const REQUESTS_IN_FLIGHT: usize = 2;
/// Slots of a symbol in the table of streams: trades, mark price, one per interval.
const SLOTS: usize = 2 + Interval::ALL.len();
const NONE: u32 = u32::MAX;

/// Bugs put in on purpose, to show that the simulation finds them. All off outside its tests.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Canary {
    /// The upgrade has no deadline.
    pub deadline_not_armed: bool,
    /// An acknowledgement makes a stream live.
    pub ack_is_proof: bool,
    /// Streams stay live over a reconnect.
    pub old_epoch_counts: bool,
}

/// What the parts of one call share.
pub(crate) struct Context<'a> {
    pub(crate) now: Now,
    pub(crate) market: &'a mut Market,
    pub(crate) notes: &'a mut Notes,
}

impl Context<'_> {
    fn note(&mut self, note: Note) {
        self.notes.push(self.now.mono, self.now.utc(), note);
    }
}

/// All connections of the market streams.
pub struct Feed {
    connections: Vec<Connection>,
    streams: Vec<Stream>,
    /// Index of the stream of a symbol and kind, [`SLOTS`] a symbol.
    slots: Vec<u32>,
    /// Streams of a symbol that are acknowledged and have no data: whoever has data tells them.
    waiting: Vec<u8>,
    /// When a trade, or a candle pushed because of one, last came, by symbol.
    traded_at: Vec<Instant>,
    decoder: Decoder,
    budget: ConnectBudget,
    deadlines: crate::config::Deadlines,
    backoff: crate::config::Backoff,
    by: SubscribeBy,
    rng: fastrand::Rng,
    canary: Canary,
    /// Not before this does any connection have to be looked at.
    wake: Instant,
}

impl Feed {
    /// Lays the configured streams out over connections, which begin to connect at once.
    pub fn new(
        config: &Config,
        tls: Option<Arc<rustls::ClientConfig>>,
        symbols: &Symbols,
        seed: u64,
        canary: Canary,
        now: Instant,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut feed = Self {
            connections: Vec::new(),
            streams: Vec::new(),
            slots: vec![NONE; symbols.len() * SLOTS],
            waiting: vec![0; symbols.len()],
            traded_at: vec![Instant::ZERO; symbols.len()],
            decoder: Decoder::default(),
            budget: ConnectBudget::default(),
            deadlines: config.deadlines.clone(),
            backoff: config.backoff,
            by: config.streams.subscribe_by,
            rng: rng.fork(),
            canary,
            wake: now,
        };
        let base = &config.exchange.market_ws;
        for (index, group) in layout::lay_out(config, symbols).into_iter().enumerate() {
            let target = layout::target(config, &group);
            let mut deadlines = config.deadlines.clone();
            if canary.deadline_not_armed {
                (deadlines.upgrade, deadlines.connect) = (Span::MAX, Span::MAX);
            }
            let settings = Settings {
                host: base.host.clone(),
                port: base.port,
                tls: tls.clone().filter(|_| base.is_tls()),
                target: target.clone(),
                deadlines,
                backoff: config.backoff,
                message_bytes_max: MESSAGE_BYTES_MAX,
            };
            let session = Session::new(settings, rng.u64(..), now);
            let first = feed.streams.len();
            for wanted in group {
                let at = feed.streams.len();
                feed.slots[wanted.symbol.index() * SLOTS + slot(wanted.kind)] = at as u32;
                feed.streams.push(Stream::new(wanted.symbol, wanted.kind, wanted.name.into(), index));
            }
            let short = target.split_once("?streams=").map_or(target.as_str(), |(path, _)| path);
            let url = format!("{}://{}{short}", base.scheme, base.authority());
            let name = format!("market-{index}");
            let streams = (first..feed.streams.len()).collect();
            feed.connections.push(Connection::new(name.into(), url.into(), session, streams, now));
        }
        feed
    }

    /// One row per connection.
    pub fn connections(&self) -> &[Connection] {
        &self.connections
    }

    /// One row per stream.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// The reader of messages, for its counters.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// When something may have to be done.
    pub fn deadline(&self) -> Instant {
        self.wake
    }

    /// The session in a slot.
    pub(crate) fn session_mut(&mut self, connection: usize) -> Option<&mut Session> {
        self.connections.get_mut(connection).map(|connection| &mut connection.session)
    }

    /// Asks all connections to say goodbye.
    pub(crate) fn stop(&mut self, ctx: &mut Context<'_>) {
        for index in 0..self.connections.len() {
            self.connections[index].session.stop(ctx.now.mono);
            self.connections[index].to_ask.clear();
            self.settle(index, ctx);
        }
    }

    /// True when every connection has ended for good.
    pub fn is_stopped(&self) -> bool {
        self.connections.iter().all(|connection| connection.session.is_stopped())
    }

    // ---- time

    /// Does whatever is due.
    pub(crate) fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        if self.wake > ctx.now.mono {
            return;
        }
        for index in 0..self.connections.len() {
            if self.connections[index].wake <= ctx.now.mono {
                self.connection_timeout(index, ctx);
            }
        }
        self.wake = self.connections.iter().map(|connection| connection.wake).min().unwrap_or(Instant::FAR);
    }

    fn connection_timeout(&mut self, index: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let connection = &mut self.connections[index];
        let before = connection.session.epoch();
        if let State::Backoff { until } = connection.session.state()
            && until <= now
        {
            match self.budget.permit(before > 0, now) {
                Ok(()) => {
                    connection.attempt_began = now;
                    let attempt = connection.session.attempt() + 1;
                    let (name, url) = (connection.name.clone(), connection.url.clone());
                    // An outage is told once; its attempts are in the books.
                    if !connection.in_outage {
                        self.say(index, Note::Attempt { connection: name, attempt, url }, ctx);
                    }
                }
                Err(at) => connection.session.postpone(at),
            }
        }
        self.connections[index].session.handle_timeout(now);
        self.drain(index, ctx);
        self.judge(index, ctx);
        for kind in 0..RejectKind::ALL.len() {
            if self.connections[index].refusals[kind].due() <= now {
                self.tell_refusals(index, kind, ctx);
            }
        }
        let connection = &mut self.connections[index];
        if connection.voice.due() <= now
            && let Some((count, newest)) = connection.voice.sum(now)
        {
            ctx.note(Note::Held { connection: connection.name.clone(), count, newest });
        }
        self.settle(index, ctx);
        self.rearm(index);
    }

    /// Sends what may be sent, and makes sure that the next deadline wakes us.
    fn settle(&mut self, index: usize, ctx: &mut Context<'_>) {
        self.ask(index, ctx);
        let connection = &mut self.connections[index];
        connection.wake = connection.wake.min(connection.session.deadline()).min(connection.sums_due());
        self.wake = self.wake.min(connection.wake);
    }

    fn arm(&mut self, index: usize, at: Instant) {
        let connection = &mut self.connections[index];
        connection.wake = connection.wake.min(at);
        self.wake = self.wake.min(at);
    }

    /// The exact next deadline of a connection: after it woke, never per frame.
    fn rearm(&mut self, index: usize) {
        let connection = &self.connections[index];
        let mut wake = connection.session.deadline().min(connection.sums_due());
        if connection.session.is_open() {
            let waiting = !connection.to_ask.is_empty() || !connection.to_drop.is_empty();
            if waiting && connection.pending.len() < REQUESTS_IN_FLIGHT {
                wake = wake.min(connection.session.may_send_at());
            }
            wake = connection.pending.iter().map(|ask| ask.until).fold(wake, Instant::min);
            wake = wake.min(self.all_silent_at(index));
            let streams = connection.streams.iter();
            wake = streams.map(|at| self.streams[*at].state.deadline()).fold(wake, Instant::min);
        }
        self.connections[index].wake = wake;
    }

    /// Says something about one connection, unless it has said too much lately.
    fn say(&mut self, index: usize, note: Note, ctx: &mut Context<'_>) {
        if self.connections[index].voice.admit(|| note.to_string(), ctx.now.mono) {
            ctx.note(note);
        }
    }

    // ---- what a connection tells

    /// Bytes were put into the session's buffer.
    pub(crate) fn handle_received(&mut self, index: usize, n: usize, ctx: &mut Context<'_>) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        connection.session.handle_received(n, ctx.now.mono);
        self.drain(index, ctx);
        self.settle(index, ctx);
    }

    /// The session was told something else than bytes.
    pub(crate) fn handled(&mut self, index: usize, ctx: &mut Context<'_>) {
        self.drain(index, ctx);
        self.settle(index, ctx);
    }

    fn drain(&mut self, index: usize, ctx: &mut Context<'_>) {
        while let Some(event) = self.connections[index].session.poll_event(ctx.now.mono) {
            match event {
                SessionEvent::Message(Incoming::Text(text)) => self.on_text(index, text.as_str(), ctx),
                SessionEvent::Message(Incoming::Binary(bytes)) => {
                    self.connections[index].frames += 1;
                    let reject = Reject { kind: RejectKind::Binary, field: None };
                    self.refuse(index, reject, || format!("{bytes} bytes"), ctx);
                }
                SessionEvent::Message(Incoming::Control | Incoming::Closed(_)) => {}
                SessionEvent::Open => self.on_open(index, ctx),
                SessionEvent::Remembered(reason) => {
                    let connection = self.connections[index].name.clone();
                    ctx.note(Note::Remembered { connection, reason });
                }
                SessionEvent::Ended(ending) => self.on_ended(index, ending, ctx),
            }
        }
    }

    fn on_open(&mut self, index: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let connection = &mut self.connections[index];
        (connection.proved, connection.all_live_told) = (false, false);
        connection.pending.clear();
        connection.to_ask.clear();
        connection.to_drop.clear();
        for at in &connection.streams {
            if matches!(self.streams[*at].state, StreamState::Failed { .. }) {
                self.streams[*at].state = StreamState::Wanted;
            }
        }
        let note = Note::Open {
            connection: connection.name.clone(),
            elapsed: now.since(connection.attempt_began),
            address: connection.session.address(),
        };
        // Within an outage, opening is no news; data is.
        if !connection.in_outage {
            self.say(index, note, ctx);
        }
        match self.by {
            SubscribeBy::Message => {
                self.connections[index].to_ask = self.connections[index].streams.iter().copied().collect();
            }
            SubscribeBy::Url => {
                // The upgrade's answer is all the acknowledgement there is.
                let until = now + self.deadlines.first_data;
                for at in 0..self.connections[index].streams.len() {
                    let stream = self.connections[index].streams[at];
                    self.streams[stream].ask(now);
                    self.acknowledge(stream, until, now);
                }
                let (connection, streams) =
                    (self.connections[index].name.clone(), self.connections[index].streams.len());
                self.say(index, Note::Asked { connection, streams, by: "URL" }, ctx);
                self.arm(index, until);
            }
        }
    }

    fn on_ended(&mut self, index: usize, ending: Ending, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        if ending.violation && ending.stage == Stage::Read {
            let reject = Reject { kind: RejectKind::Protocol, field: None };
            self.refuse(index, reject, || ending.reason.clone(), ctx);
        }
        let connection = &mut self.connections[index];
        if let Some(at) = Stage::ALL.iter().position(|stage| *stage == ending.stage) {
            connection.endings_by_stage[at] += 1;
        }
        connection.last_ending = Some((ending.clone(), ctx.now.utc()));
        let live = std::mem::take(&mut connection.live);
        if live > 0 {
            connection.dark_since = now;
        }
        connection.to_ask.clear();
        connection.pending.clear();
        let pause = match connection.session.state() {
            State::Backoff { until } => Some(until.since(now)),
            State::Resolving { .. }
            | State::Dialing { .. }
            | State::Securing { .. }
            | State::Upgrading { .. }
            | State::Open
            | State::Closing { .. }
            | State::Stopped => None,
        };
        let reason: Rc<str> = format!("{}: {ending}", connection.name).into();
        for at in 0..connection.streams.len() {
            let stream = self.connections[index].streams[at];
            if !(self.canary.old_epoch_counts && self.streams[stream].state == StreamState::Live) {
                self.unwait(stream);
                if !matches!(self.streams[stream].state, StreamState::Failed { .. }) {
                    self.streams[stream].state = StreamState::Wanted;
                    self.streams[stream].reason = Some(reason.clone());
                }
            }
        }
        let connection = &mut self.connections[index];
        let (name, attempts) = (connection.name.clone(), self.deadlines.attempts);
        let (failures, dark) = (ending.attempt, now.since(connection.dark_since));
        let told = connection.in_outage;
        let outage = pause.is_some() && failures >= attempts && !told;
        connection.in_outage |= outage;
        if !told {
            let ending = ending.clone();
            self.say(index, Note::Ended { connection: name.clone(), ending, attempts, pause, live }, ctx);
        }
        if outage {
            ctx.note(Note::Outage { connection: name, failures, dark });
        } else if told && failures.is_power_of_two() {
            ctx.note(Note::StillOut { connection: name, failures, dark, last: ending.clone() });
        }
        if let Some(wait) = ending.retry_after {
            // The venue counts by address, so whoever goes to the same host stays away as long.
            let host = self.connections[index].session.settings().host.clone();
            for other in 0..self.connections.len() {
                if self.connections[other].session.settings().host == host {
                    self.connections[other].session.hold(now + wait, now);
                    // What that ended is told at once, in its own turn.
                    self.arm(other, now);
                }
            }
        }
    }

    // ---- asking

    /// Sends the next requests, as many as the budget allows.
    fn ask(&mut self, index: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        loop {
            let connection = &mut self.connections[index];
            let nothing = connection.to_ask.is_empty() && connection.to_drop.is_empty();
            // The answers set the pace: what a frozen path holds back must not arrive as a burst.
            if nothing || !connection.session.is_open() || connection.pending.len() >= REQUESTS_IN_FLIGHT {
                return;
            }
            let until = now + self.deadlines.ack;
            let (dropping, id) = (!connection.to_drop.is_empty(), connection.next_id);
            let method = if dropping { "UNSUBSCRIBE" } else { "SUBSCRIBE" };
            let mut waiting =
                if dropping { connection.to_drop.iter() } else { connection.to_ask.make_contiguous().iter() };
            let (mut text, mut named) = (format!(r#"{{"method":"{method}","params":["#), Vec::new());
            while let Some(stream) = waiting.next().filter(|_| named.len() < SUBSCRIBE_NAMES_MAX) {
                let name = &self.streams[*stream].name;
                if text.len() + name.len() + 40 > SUBSCRIBE_BYTES_MAX {
                    break;
                }
                let comma = if named.is_empty() { "" } else { "," };
                // Names are the configuration's, which allows nothing that JSON would have to escape.
                write!(text, "{comma}\"{name}\"").ok();
                named.push(*stream);
            }
            write!(text, "],\"id\":{id}}}").ok();
            if connection.session.send(&text, now).is_err() {
                // Over the budget, perhaps by a pong; or the connection ended, and everything is asked for anew.
                let at = connection.session.may_send_at();
                return self.arm(index, at);
            }
            connection.next_id += 1;
            if dropping {
                connection.to_drop.drain(..named.len());
                connection.pending.push(PendingAsk { id, streams: Vec::new(), until });
                self.arm(index, until);
                continue;
            }
            connection.to_ask.drain(..named.len());
            let name = connection.name.clone();
            for stream in &named {
                self.streams[*stream].ask(now);
                // Data that came before the request is data all the same.
                if self.streams[*stream].state != StreamState::Live {
                    self.streams[*stream].state = StreamState::Sent { until };
                }
            }
            // That a stream which failed is asked for again was said when it failed.
            let first = named.iter().any(|stream| self.streams[*stream].failures_in_a_row == 0);
            let streams = named.len();
            self.connections[index].pending.push(PendingAsk { id, streams: named, until });
            self.arm(index, until);
            if first && !self.connections[index].in_outage {
                self.say(index, Note::Asked { connection: name, streams, by: "SUBSCRIBE" }, ctx);
            }
        }
    }

    fn on_reply(&mut self, index: usize, reply: Reply, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let connection = &mut self.connections[index];
        let (id, error) = match reply {
            Reply::Ack { id } => (id, None),
            // We never ask for a list or a property; an answer to one is nobody's.
            Reply::Result { id } => (id.filter(|_| false), None),
            Reply::Error { id, code, message } => (id, Some(format!("refused by the venue: {code} {message}"))),
        };
        let at = match (id, &error) {
            (Some(id), _) => connection.pending.iter().position(|ask| ask.id == id),
            // An error that names no request can only mean the one that is open.
            (None, Some(_)) if connection.pending.len() == 1 => Some(0),
            (None, _) => None,
        };
        let Some(at) = at else {
            let words = match error {
                Some(words) => words,
                None => {
                    format!("an answer to no request of ours (id {})", id.map_or("none".into(), |id| id.to_string()))
                }
            };
            let connection = connection.name.clone();
            return self.say(index, Note::Answer { connection, words }, ctx);
        };
        let ask = connection.pending.swap_remove(at);
        match error {
            None => {
                let until = now + self.deadlines.first_data;
                for stream in ask.streams {
                    if matches!(self.streams[stream].state, StreamState::Sent { .. }) {
                        self.acknowledge(stream, until, now);
                        if self.canary.ack_is_proof {
                            self.prove(index, stream, ctx);
                        }
                    }
                }
                self.arm(index, until);
            }
            Some(words) => {
                let words: Rc<str> = words.into();
                for stream in ask.streams {
                    if matches!(self.streams[stream].state, StreamState::Sent { .. }) {
                        self.fail(index, stream, words.clone(), ctx);
                    }
                }
                self.replace_if_useless(index, Stage::Ack, ctx);
            }
        }
    }

    fn acknowledge(&mut self, stream: usize, until: Instant, now: Instant) {
        let stream = &mut self.streams[stream];
        stream.acked_at = now;
        stream.reason = None;
        stream.state = StreamState::Acked { until };
        self.waiting[stream.symbol.index()] += 1;
    }

    /// Takes a stream out of the count of those that wait for data.
    fn unwait(&mut self, stream: usize) {
        let stream = &self.streams[stream];
        if matches!(stream.state, StreamState::Acked { .. } | StreamState::Quiet { .. }) {
            self.waiting[stream.symbol.index()] -= 1;
        }
    }

    // ---- data

    fn on_text(&mut self, index: usize, text: &str, ctx: &mut Context<'_>) {
        self.connections[index].frames += 1;
        match self.decoder.decode(text, ctx.market.symbols()) {
            Ok(Decoded::Frame(frame)) => self.on_frame(index, &frame, text, ctx),
            Ok(Decoded::Marks { refused, first }) => {
                for row in 0..self.decoder.marks().len() {
                    let frame = Frame::Mark(self.decoder.marks()[row]);
                    self.on_frame(index, &frame, text, ctx);
                }
                for reject in first.into_iter().cycle().take(refused as usize) {
                    self.refuse(index, reject, || wire::sample(text.as_bytes()), ctx);
                }
            }
            Ok(Decoded::Control(reply)) => self.on_reply(index, reply, ctx),
            Ok(Decoded::Shutdown) => {
                let connection = self.connections[index].name.clone();
                ctx.note(Note::Shutdown { connection });
            }
            Ok(Decoded::Other) => {
                let reject = Reject { kind: RejectKind::Unasked, field: None };
                self.refuse(index, reject, || wire::sample(text.as_bytes()), ctx);
            }
            Err(reject) => self.refuse(index, reject, || wire::sample(text.as_bytes()), ctx),
        }
    }

    fn on_frame(&mut self, index: usize, frame: &Frame, text: &str, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let at = self.slots[frame.symbol().index() * SLOTS + slot(frame.kind())] as usize;
        let Some(stream) = self.streams.get_mut(at).filter(|stream| stream.connection == index) else {
            let reject = Reject { kind: RejectKind::Unasked, field: None };
            return self.refuse(index, reject, || wire::sample(text.as_bytes()), ctx);
        };
        stream.last_data = Some(now);
        let proved = stream.state == StreamState::Live;
        let connection = &mut self.connections[index];
        connection.last_data = Some(now);
        let source = Source { session: index as u32, epoch: connection.session.epoch() };
        match ctx.market.apply(frame, source, ctx.now) {
            Applied::Trade(TapeEvent::Refused) => {
                let reject = Reject { kind: RejectKind::Id, field: Some("a") };
                return self.refuse(index, reject, || wire::sample(text.as_bytes()), ctx);
            }
            Applied::Trade(TapeEvent::Gap(hole)) => {
                let symbol = ctx.market.symbols().name(frame.symbol()).into();
                ctx.note(Note::HoleOpened { symbol, hole });
            }
            Applied::Trade(TapeEvent::Filled) => {
                let tape = ctx.market.book(frame.symbol()).tape.as_ref();
                if tape.is_some_and(|tape| tape.missing() == 0) {
                    let symbol = ctx.market.symbols().name(frame.symbol()).into();
                    ctx.note(Note::HolesClosed { symbol });
                }
            }
            Applied::Trade(TapeEvent::Next | TapeEvent::Duplicate) | Applied::Mark | Applied::Candle => {}
        }
        if !proved {
            self.prove(index, at, ctx);
        }
        // A candle is pushed when somebody trades, except for the last push, which may come by the clock.
        let traded = match frame {
            Frame::Trade(_) => true,
            Frame::Kline(kline) => !kline.closed,
            Frame::Mark(_) => false,
        };
        if traded {
            self.traded_at[frame.symbol().index()] = now;
            if self.waiting[frame.symbol().index()] > 0 {
                self.testify(frame.symbol(), at, ctx);
            }
        }
    }

    /// The stream's own data has come: nothing else makes it live.
    fn prove(&mut self, index: usize, at: usize, ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        self.unwait(at);
        let stream = &mut self.streams[at];
        stream.state = StreamState::Live;
        stream.successes += 1;
        stream.failures_in_a_row = 0;
        stream.reason = None;
        let connection = &mut self.connections[index];
        connection.live += 1;
        let (name, elapsed) = (stream.name.clone(), now.since(stream.asked_at));
        ctx.note(Note::StreamLive { stream: name, connection: connection.name.clone(), elapsed });
        if !connection.proved {
            connection.proved = true;
            connection.session.proved();
            if std::mem::take(&mut connection.in_outage) {
                let dark = now.since(connection.dark_since);
                ctx.note(Note::OutageOver { connection: connection.name.clone(), dark });
            }
            let at = self.all_silent_at(index);
            self.arm(index, at);
        }
        self.tell_all_live(index, ctx);
    }

    fn tell_all_live(&mut self, index: usize, ctx: &mut Context<'_>) {
        let connection = &self.connections[index];
        if connection.all_live_told || !connection.streams.iter().all(|at| self.streams[*at].state.is_fine()) {
            return;
        }
        let (live, streams) = (connection.live, connection.streams.len() as u32);
        let note = Note::AllLive {
            connection: connection.name.clone(),
            live,
            quiet: streams - live,
            elapsed: ctx.now.mono.since(connection.session.since()),
        };
        self.connections[index].all_live_told = true;
        self.say(index, note, ctx);
    }

    // ---- refusals

    fn refuse(&mut self, index: usize, reject: Reject, sample: impl FnOnce() -> String, ctx: &mut Context<'_>) {
        let kind = RejectKind::ALL.iter().position(|kind| *kind == reject.kind).unwrap_or(0);
        if self.connections[index].refusals[kind].add(reject, sample, ctx.now.mono) {
            self.tell_refusals(index, kind, ctx);
        }
    }

    fn tell_refusals(&mut self, index: usize, kind: usize, ctx: &mut Context<'_>) {
        let connection = &mut self.connections[index];
        if let Some((reject, count, sample)) = connection.refusals[kind].tell(ctx.now.mono) {
            ctx.note(Note::Refused { connection: connection.name.clone(), reject, count, sample });
        }
    }

    /// Why streams fail says which path they were asked for on; the wrong one is acknowledged and silent.
    fn path(&self, index: usize) -> &str {
        let target = &self.connections[index].session.settings().target;
        target.split_once('?').map_or(target, |(path, _)| path)
    }
}

/// Where a kind of stream is in a symbol's part of the table.
fn slot(kind: StreamKind) -> usize {
    match kind {
        StreamKind::AggTrade => 0,
        StreamKind::MarkPrice => 1,
        StreamKind::Kline(interval) => 2 + interval as usize,
    }
}

/// The extra-root and web-root TLS configuration a feed of this configuration needs, if it needs any.
///
/// # Errors
/// See [`net::client_config`].
pub fn tls_for(config: &Config) -> Result<Option<Arc<rustls::ClientConfig>>, net::TlsError> {
    if !config.exchange.market_ws.is_tls() {
        return Ok(None);
    }
    net::client_config(config.exchange.ca_pem.as_deref()).map(Some)
}
