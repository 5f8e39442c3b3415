//! One try at a WebSocket endpoint: a [`Session`] that is not allowed a second attempt, and a question asked when it is
//! open. Pure, as the session is.

use super::stages::{Cause, Failure, Log, Step};
use crate::net::{Ending, Incoming, Session, SessionEvent, Stage, State};
use crate::time::{Instant, Span};
use crate::wire::market::{Decoded, Decoder, Reply};
use crate::wire::{StreamKind, Symbols};
use std::io::ErrorKind;
use std::net::SocketAddr;

/// The id of the one request.
const ID: u64 = 1;

/// What happened to the session.
pub(super) enum Input<'a> {
    /// Time has passed.
    Timeout,
    /// The resolver answered.
    Resolved(Result<&'a [SocketAddr], &'a str>),
    /// The socket is connected.
    Connected,
    /// So many bytes are in the session's buffer.
    Received(usize),
    /// The socket has ended.
    Ended(Option<ErrorKind>),
}

/// One stream, asked for on the open connection, and how long its two answers may take.
pub(super) struct Question {
    /// The stream.
    pub(super) name: String,
    pub(super) kind: StreamKind,
    /// Its symbol, alone in the table.
    pub(super) symbols: Symbols,
    /// Asked for by the URL already: nothing is sent, and nothing acknowledged.
    pub(super) by_url: bool,
    pub(super) ack_within: Span,
    pub(super) data_within: Span,
}

/// A question that is out.
struct Asked {
    question: Question,
    decoder: Decoder,
    /// When the stage under way is over.
    until: Instant,
    /// The stream's own data has come, perhaps before the acknowledgement.
    answered: bool,
    /// Messages that could not be read, and what was wrong with the last.
    unreadable: Option<(u64, String)>,
}

/// A WebSocket endpoint under trial.
pub(super) struct Probe {
    session: Session,
    log: Log,
    asked: Option<Asked>,
}

impl Probe {
    /// Begins with the first [`Input::Timeout`].
    pub(super) fn new(session: Session, question: Option<Question>, now: Instant) -> Self {
        let steps: &[Step] = match &question {
            None => &[Step::Resolve, Step::Tcp, Step::Tls, Step::Upgrade],
            Some(question) if question.by_url => &[Step::Resolve, Step::Tcp, Step::Tls, Step::Upgrade, Step::FirstData],
            Some(_) => &[Step::Resolve, Step::Tcp, Step::Tls, Step::Upgrade, Step::Ack, Step::FirstData],
        };
        let log = Log::new(steps, session.settings().tls.is_some(), now);
        let asked = question.map(|question| Asked {
            question,
            decoder: Decoder::default(),
            until: Instant::FAR,
            answered: false,
            unreadable: None,
        });
        Self { session, log, asked }
    }

    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// True when nothing more will be known.
    pub(super) fn is_over(&self) -> bool {
        self.log.is_over()
    }

    /// True when the connection has ended, too.
    pub(super) fn is_gone(&self) -> bool {
        self.session.is_stopped()
    }

    pub(super) fn into_log(self) -> Log {
        self.log
    }

    /// When it wants to be woken.
    pub(super) fn deadline(&self) -> Instant {
        let answer = self.asked.as_ref().filter(|_| !self.is_over()).map_or(Instant::FAR, |asked| asked.until);
        self.session.deadline().min(answer)
    }

    /// Something happened.
    pub(super) fn handle(&mut self, input: Input<'_>, now: Instant) {
        // Only a session that failed or was never needed rests, and one try is all there is.
        if self.session.is_stopped() {
            return;
        }
        let cause = match input {
            Input::Timeout => {
                self.session.handle_timeout(now);
                Cause::Silence
            }
            Input::Resolved(result) => {
                self.session.handle_resolved(result, now);
                Cause::Name
            }
            Input::Connected => {
                self.session.handle_connected(now);
                Cause::Stranger
            }
            Input::Received(n) => {
                self.session.handle_received(n, now);
                Cause::Words
            }
            Input::Ended(kind) => {
                let connecting = matches!(self.session.state(), State::Dialing { .. });
                self.session.handle_socket_end(kind, now);
                let kind = kind.unwrap_or(ErrorKind::UnexpectedEof);
                if connecting { Cause::of_connect(kind) } else { Cause::of_socket(kind) }
            }
        };
        self.follow(cause, now);
        self.judge(now);
    }

    /// The whole check is over.
    pub(super) fn expire(&mut self, whole: Span, now: Instant) {
        let cause = if self.log.step() == Some(Step::Resolve) { Cause::Name } else { Cause::Silence };
        self.fail(Failure::new(cause, format!("not done when the whole check's {whole} were over")), now);
    }

    /// Keeps up with the session. `cause` is what a failure in it comes from.
    fn follow(&mut self, cause: Cause, now: Instant) {
        while let Some(event) = self.session.poll_event(now) {
            if self.is_over() {
                continue;
            }
            match event {
                SessionEvent::Open => self.ask(now),
                SessionEvent::Message(Incoming::Text(text)) => self.on_text(text.as_str(), now),
                SessionEvent::Message(Incoming::Binary(bytes)) => self.unreadable(format!("binary, {bytes} bytes")),
                SessionEvent::Message(Incoming::Control | Incoming::Closed(_)) | SessionEvent::Remembered(_) => {}
                SessionEvent::Ended(ending) => self.on_ended(ending, cause, now),
            }
        }
        match self.session.state() {
            State::Dialing { .. } => self.log.reach(Step::Tcp, now),
            State::Securing { .. } => self.log.reach(Step::Tls, now),
            State::Upgrading { .. } => self.log.reach(Step::Upgrade, now),
            State::Backoff { .. } | State::Resolving { .. } | State::Open | State::Closing { .. } | State::Stopped => {}
        }
    }

    /// The connection is open: sends the request, if there is one to send.
    fn ask(&mut self, now: Instant) {
        self.log.reach(Step::Upgrade, now);
        self.log.pass(now);
        let Some(asked) = &mut self.asked else { return self.session.stop(now) };
        if asked.question.by_url {
            asked.until = now + asked.question.data_within;
            return;
        }
        asked.until = now + asked.question.ack_within;
        // Names are the configuration's, which allows nothing that JSON would have to escape.
        let text = format!(r#"{{"method":"SUBSCRIBE","params":["{}"],"id":{ID}}}"#, asked.question.name);
        if self.session.send(&text, now).is_err() {
            self.fail(Failure::new(Cause::Cut, "the request could not be sent"), now);
        }
    }

    fn on_text(&mut self, text: &str, now: Instant) {
        let Some(asked) = &mut self.asked else { return };
        match asked.decoder.decode(text, &asked.question.symbols) {
            Ok(Decoded::Frame(frame)) if frame.kind() == asked.question.kind => {
                asked.answered = true;
                if self.log.step() == Some(Step::FirstData) {
                    self.log.pass(now);
                    self.session.stop(now);
                }
            }
            Ok(Decoded::Control(Reply::Ack { id: Some(ID) })) => self.acknowledged(now),
            Ok(Decoded::Control(Reply::Error { id: Some(ID) | None, code, message })) => {
                self.fail(Failure::new(Cause::Words, format!("refused by the venue: {code} {message}")), now);
            }
            // Answers to nobody's question, and what no stream of ours carries.
            Ok(
                Decoded::Frame(_) | Decoded::Marks { .. } | Decoded::Control(_) | Decoded::Shutdown | Decoded::Other,
            ) => {}
            Err(reject) => self.unreadable(reject.to_string()),
        }
    }

    fn acknowledged(&mut self, now: Instant) {
        let Some(asked) = self.asked.as_mut().filter(|_| self.log.step() == Some(Step::Ack)) else { return };
        asked.until = now + asked.question.data_within;
        let answered = asked.answered;
        self.log.pass(now);
        if answered {
            self.log.pass(now);
            self.session.stop(now);
        }
    }

    fn unreadable(&mut self, why: String) {
        if let Some(asked) = &mut self.asked {
            let count = asked.unreadable.take().map_or(0, |(count, _)| count);
            asked.unreadable = Some((count + 1, why));
        }
    }

    /// The answers that are late.
    fn judge(&mut self, now: Instant) {
        let Some(asked) = self.asked.as_ref().filter(|asked| asked.until <= now && !self.log.is_over()) else { return };
        let question = &asked.question;
        let mut reason = if self.log.step() == Some(Step::Ack) {
            let though = if asked.answered { ", though its data comes" } else { "" };
            format!("{} not acknowledged within {}{though}", question.name, question.ack_within)
        } else {
            let asked_for = if question.by_url { "asked for" } else { "acknowledged" };
            let target = &self.session.settings().target;
            let path = target.split_once('?').map_or(target.as_str(), |(path, _)| path);
            let within = question.data_within;
            format!("{} {asked_for}, no data within {within} on {path}", question.name)
        };
        if let Some((count, last)) = &asked.unreadable {
            reason.push_str(&format!("; {count} messages could not be read, the last: {last}"));
        } else if question.kind == StreamKind::AggTrade && self.log.step() == Some(Step::FirstData) {
            reason.push_str(" (or nobody traded)");
        }
        self.fail(Failure::new(Cause::Silence, reason), now);
    }

    fn on_ended(&mut self, ending: Ending, cause: Cause, now: Instant) {
        let step = match ending.stage {
            Stage::Resolve => Step::Resolve,
            Stage::Tcp => Step::Tcp,
            Stage::Tls => Step::Tls,
            Stage::Upgrade => Step::Upgrade,
            // Open: whatever is waited for.
            Stage::Ack | Stage::FirstData | Stage::Read | Stage::Pong | Stage::Close => Step::Ack,
        };
        let cause = match ending.stage {
            Stage::Resolve => Cause::Name,
            Stage::Tls if ending.violation => Cause::of_tls(&ending.reason),
            // The peer's TLS goodbye in the middle of its handshake.
            Stage::Tls if cause == Cause::Words => Cause::Cut,
            Stage::Tcp
            | Stage::Tls
            | Stage::Upgrade
            | Stage::Ack
            | Stage::FirstData
            | Stage::Read
            | Stage::Pong
            | Stage::Close => cause,
        };
        self.log.reach(step, now);
        let reason = match ending.address {
            Some(address) => format!("{} ({address})", ending.reason),
            None => ending.reason,
        };
        self.fail(Failure::new(cause, reason), now);
    }

    fn fail(&mut self, failure: Failure, now: Instant) {
        self.log.fail(failure, now);
        self.session.stop(now);
    }
}
