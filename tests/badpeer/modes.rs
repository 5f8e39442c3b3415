//! Every way to misbehave, and how it is played.

use std::time::Duration;

use super::line::{Ack, Go, Line};
use super::text::{
    self, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, TEXT, close, frame, header, message, nonsense, now_ms,
    trade_at,
};

/// How a server misbehaves. Unless a mode is about them, requests are acknowledged and pings answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It does not: requests are acknowledged, and every symbol asked for has ten trades a second. For knowing that a
    /// red test is the fault's doing.
    Healthy,
    /// Before or in the TLS handshake. Without TLS these befall the first bytes just the same.
    Tls(Tls),
    /// In the answer to the upgrade.
    Upgrade(Upgrade),
    /// In the answer to a subscription.
    Subscription(Subscription),
    /// In the market data of an established connection.
    Data(Data),
    /// An established connection ends.
    End(End),
    /// In the framing of an established connection.
    Frame(Frame),
}

/// See [`Mode::Tls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Never a byte.
    Mute,
    /// FIN at once.
    Fin,
    /// RST in answer to the first bytes.
    Reset,
    /// Plain HTTP in answer to the first bytes.
    Plaintext,
    /// A byte each 100 ms.
    Trickle,
    /// The first 100 bytes, and no more.
    Cut,
    /// A certificate for another name.
    WrongName,
    /// A certificate of nobody we know.
    Untrusted,
    /// A certificate that is over.
    Expired,
}

/// See [`Mode::Upgrade`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// Never a byte.
    Mute,
    /// A byte each 100 ms.
    Trickle,
    /// Header lines without end, as fast as they are taken.
    EndlessHeader,
    /// FIN in the middle of the answer.
    Cut,
    /// Another status, with `Retry-After` if given. 301 has a `Location`.
    Status(u16, Option<u32>),
    /// Something that is not HTTP.
    NotHttp,
    /// `Sec-WebSocket-Accept` of another key.
    BadKey,
    /// An extension that nobody asked for.
    Extension,
    /// A subprotocol that nobody asked for.
    Subprotocol,
    /// Fifty trades in one piece with the answer, and nothing wrong with it; then as [`Mode::Healthy`].
    Glued,
}

/// See [`Mode::Subscription`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subscription {
    /// Not acknowledged, and no data.
    NoAck,
    /// An acknowledgement with an id that nobody used, and no data.
    WrongId,
    /// Refused with an error, and no data.
    Error,
    /// Acknowledged, but no data ever.
    AckNoData,
    /// Data first, the acknowledgement behind it; then as [`Mode::Healthy`].
    DataBeforeAck,
}

/// See [`Mode::Data`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// Twenty trades, then only pongs.
    Zombie,
    /// Twenty trades, then nothing at all.
    Mute,
    /// Trades as fast as they are taken.
    Firehose,
    /// Trades go on, but nothing the client sends is read any more.
    StopReading,
    /// Messages of the wrong shape; then as [`Mode::Healthy`].
    BadJson,
    /// Repeated, old and missing ids; then as [`Mode::Healthy`].
    MixedIds,
    /// Event times of other days; then as [`Mode::Healthy`].
    WildTimes,
}

/// See [`Mode::End`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A trade, then a close frame with this code, or with none.
    Close(Option<u16>),
    /// A trade, then a close frame of one byte.
    CloseOneByte,
    /// A trade, then a close frame whose reason is not UTF-8.
    CloseBadReason,
    /// A close frame with 1000 as the answer to the first request.
    CloseOnSend,
    /// A trade, then FIN without a word.
    Eof,
    /// A trade, then RST.
    Reset,
}

/// See [`Mode::Frame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A header that promises 2^63 - 1 bytes.
    HugeLength,
    /// A header whose length has its highest bit set.
    NegativeLength,
    /// One message of 100 MiB.
    Big,
    /// A message in fragments without end.
    FragmentsForever,
    /// A trade in a thousand fragments with pings between them, which is fine; then as [`Mode::Healthy`].
    FragmentsOk,
    /// A message of 4000 bytes, one each 100 ms.
    Trickle,
    /// A text that is not UTF-8.
    BadUtf8,
    /// A masked frame.
    Masked,
    /// A reserved bit.
    Rsv,
    /// An opcode that does not exist.
    BadOpcode,
    /// A binary message.
    Binary,
    /// A ping of 126 bytes.
    LongControl,
    /// A ping that is not whole.
    FragmentedControl,
    /// A continuation of nothing.
    Orphan,
    /// A new message within an unfinished one.
    Nested,
    /// A length in more bytes than it needs.
    LongLength,
    /// Pings as fast as they are taken.
    PingFlood,
    /// Pongs that answer nothing, which is fine; then as [`Mode::Healthy`].
    PongUnasked,
}

impl Mode {
    /// Every mode, with the statuses and codes that matter.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Healthy];
        all.extend(
            [
                Tls::Mute,
                Tls::Fin,
                Tls::Reset,
                Tls::Plaintext,
                Tls::Trickle,
                Tls::Cut,
                Tls::WrongName,
                Tls::Untrusted,
                Tls::Expired,
            ]
            .map(Self::Tls),
        );
        all.extend(
            [
                Upgrade::Mute,
                Upgrade::Trickle,
                Upgrade::EndlessHeader,
                Upgrade::Cut,
                Upgrade::Status(200, None),
                Upgrade::Status(301, None),
                Upgrade::Status(403, None),
                Upgrade::Status(418, Some(7)),
                Upgrade::Status(429, Some(7)),
                Upgrade::Status(503, None),
                Upgrade::NotHttp,
                Upgrade::BadKey,
                Upgrade::Extension,
                Upgrade::Subprotocol,
                Upgrade::Glued,
            ]
            .map(Self::Upgrade),
        );
        all.extend(
            [
                Subscription::NoAck,
                Subscription::WrongId,
                Subscription::Error,
                Subscription::AckNoData,
                Subscription::DataBeforeAck,
            ]
            .map(Self::Subscription),
        );
        all.extend(
            [
                Data::Zombie,
                Data::Mute,
                Data::Firehose,
                Data::StopReading,
                Data::BadJson,
                Data::MixedIds,
                Data::WildTimes,
            ]
            .map(Self::Data),
        );
        // 1005 is never to be seen on a wire.
        all.extend([1000, 1001, 1005, 1008, 1011, 1012, 1013].map(|code| Self::End(End::Close(Some(code)))));
        all.extend(
            [End::Close(None), End::CloseOneByte, End::CloseBadReason, End::CloseOnSend, End::Eof, End::Reset]
                .map(Self::End),
        );
        all.extend(
            [
                Frame::HugeLength,
                Frame::NegativeLength,
                Frame::Big,
                Frame::FragmentsForever,
                Frame::FragmentsOk,
                Frame::Trickle,
                Frame::BadUtf8,
                Frame::Masked,
                Frame::Rsv,
                Frame::BadOpcode,
                Frame::Binary,
                Frame::LongControl,
                Frame::FragmentedControl,
                Frame::Orphan,
                Frame::Nested,
                Frame::LongLength,
                Frame::PingFlood,
                Frame::PongUnasked,
            ]
            .map(Self::Frame),
        );
        all
    }
}

/// Plays a mode on a fresh connection, until the client leaves or the server stops.
pub(super) fn play(mode: Mode, line: &mut Line) -> Go {
    match mode {
        Mode::Healthy => {
            line.open()?;
            feed(line)
        }
        Mode::Tls(mode) => tls(mode, line),
        Mode::Upgrade(mode) => {
            line.handshake(Duration::ZERO, usize::MAX)?;
            line.request()?;
            upgrade(mode, line)
        }
        Mode::Subscription(mode) => {
            line.open()?;
            match mode {
                Subscription::NoAck => line.attend(FOREVER, Ack::Never),
                Subscription::WrongId => line.attend(FOREVER, Ack::WrongId),
                Subscription::Error => line.attend(FOREVER, Ack::Refused),
                Subscription::AckNoData => line.attend(FOREVER, Ack::Right),
                Subscription::DataBeforeAck => {
                    line.asked(Ack::AfterData)?;
                    feed(line)
                }
            }
        }
        Mode::Data(mode) => {
            line.open()?;
            line.asked(Ack::Right)?;
            data(mode, line)
        }
        Mode::End(mode) => {
            line.open()?;
            end(mode, line)
        }
        Mode::Frame(mode) => {
            line.open()?;
            line.asked(Ack::Right)?;
            framing(mode, line)
        }
    }
}

/// Ordinary service.
fn feed(line: &mut Line) -> Go {
    line.asked(Ack::Right)?;
    loop {
        line.trades()?;
        line.attend(TRADE_EVERY, Ack::Right)?;
    }
}

fn tls(mode: Tls, line: &mut Line) -> Go {
    match mode {
        Tls::Mute => line.silence(),
        Tls::Fin => line.fin(),
        Tls::Reset => {
            line.raw_first()?;
            line.reset()
        }
        Tls::Plaintext => {
            line.raw_first()?;
            line.raw_send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
            line.silence()
        }
        Tls::Trickle => {
            line.handshake(BYTE_EVERY, usize::MAX)?;
            line.silence()
        }
        Tls::Cut => {
            line.handshake(Duration::ZERO, 100)?;
            line.silence()
        }
        // A client that trusts these is served, so that it shows.
        Tls::WrongName | Tls::Untrusted | Tls::Expired => {
            line.open()?;
            feed(line)
        }
    }
}

fn upgrade(mode: Upgrade, line: &mut Line) -> Go {
    let key = line.accept_key();
    match mode {
        Upgrade::Mute => line.silence(),
        Upgrade::Trickle => {
            let answer = format!("HTTP/1.1 101 Switching Protocols\r\nX-Long: {}", "y".repeat(10_000));
            trickle(line, answer.as_bytes())
        }
        Upgrade::EndlessHeader => {
            line.send(b"HTTP/1.1 101 Switching Protocols\r\n")?;
            let header = format!("X-Long: {}\r\n", "y".repeat(1000));
            loop {
                line.send(header.as_bytes())?;
            }
        }
        Upgrade::Cut => {
            line.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs")?;
            line.fin()
        }
        Upgrade::Status(status, retry_after) => {
            let retry = retry_after.map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
            let location = if status == 301 { "Location: ws://127.0.0.1:1/\r\n" } else { "" };
            let answer = format!("HTTP/1.1 {status} No\r\n{retry}{location}Content-Length: 0\r\n\r\n");
            line.send(answer.as_bytes())?;
            line.silence()
        }
        Upgrade::NotHttp => {
            line.send(b"220 mail.test ESMTP\r\n\r\n")?;
            line.silence()
        }
        Upgrade::BadKey => {
            line.grant("AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "", b"")?;
            feed(line)
        }
        Upgrade::Extension => {
            line.grant(&key, "Sec-WebSocket-Extensions: permessage-deflate\r\n", b"")?;
            feed(line)
        }
        Upgrade::Subprotocol => {
            line.grant(&key, "Sec-WebSocket-Protocol: chat\r\n", b"")?;
            feed(line)
        }
        Upgrade::Glued => {
            let (symbol, first) = (line.symbol(), line.ids(50));
            let trades = (first..first + 50).map(|id| message(&line.wrapped(&symbol, &text::trade(&symbol, id))));
            let trades: Vec<u8> = trades.flatten().collect();
            line.grant(&key, "", &trades)?;
            feed(line)
        }
    }
}

fn data(mode: Data, line: &mut Line) -> Go {
    let symbol = line.symbol();
    match mode {
        Data::Zombie => {
            (0..20).try_for_each(|_| line.trades())?;
            line.attend(FOREVER, Ack::Right)
        }
        Data::Mute => {
            (0..20).try_for_each(|_| line.trades())?;
            line.silence()
        }
        Data::Firehose => loop {
            let first = line.ids(1000);
            let trades = (first..first + 1000).map(|id| message(&line.wrapped(&symbol, &text::trade(&symbol, id))));
            let trades: Vec<u8> = trades.flatten().collect();
            line.send(&trades)?;
            line.attend(Duration::ZERO, Ack::Right)?;
        },
        Data::StopReading => loop {
            line.trades()?;
            line.pause(TRADE_EVERY)?;
        },
        Data::BadJson => {
            line.trades()?;
            let id = line.ids(1);
            for text in nonsense(&symbol, id) {
                line.say(&text)?;
                // Also where a stream's data belongs.
                line.say(&line.wrapped(&symbol, &text))?;
                line.attend(Duration::ZERO, Ack::Right)?;
            }
            feed(line)
        }
        Data::MixedIds => {
            let first = line.ids(12);
            for step in [1, 2, 2, 3, 1, 5, 4, 10, 9, 11] {
                line.say(&line.wrapped(&symbol, &text::trade(&symbol, first + step)))?;
            }
            feed(line)
        }
        Data::WildTimes => {
            for offset in [0, -86_400_000, 86_400_000, -1, 1_000_000_000_000_000] {
                let trade = trade_at(&symbol, line.ids(1), now_ms() + offset, "\"65000.10\"");
                line.say(&line.wrapped(&symbol, &trade))?;
            }
            feed(line)
        }
    }
}

fn end(mode: End, line: &mut Line) -> Go {
    if mode == End::CloseOnSend {
        while line.asked == 0 {
            line.attend(Duration::from_millis(2), Ack::Never)?;
        }
        line.send(&close(Some(1000), b""))?;
        return line.attend(FOREVER, Ack::Never);
    }
    line.asked(Ack::Right)?;
    line.trades()?;
    match mode {
        End::Close(code) => line.send(&close(code, b""))?,
        End::CloseOneByte => line.send(&frame(FIN | CLOSE, &[3]))?,
        End::CloseBadReason => line.send(&close(Some(1000), b"\xff\xfe"))?,
        End::CloseOnSend => {}
        End::Eof => return line.fin(),
        End::Reset => {
            // What was sent is to arrive first.
            line.pause(TRADE_EVERY)?;
            return line.reset();
        }
    }
    line.attend(FOREVER, Ack::Never)
}

fn framing(mode: Frame, line: &mut Line) -> Go {
    let bytes = match mode {
        Frame::HugeLength => header(FIN | TEXT, (1 << 63) - 1),
        Frame::NegativeLength => header(FIN | TEXT, u64::MAX),
        Frame::BadUtf8 => frame(FIN | TEXT, b"\xc3\x28"),
        Frame::Masked => b"\x81\x82\x01\x02\x03\x04\x7a\x7f".to_vec(),
        Frame::Rsv => frame(FIN | RSV1 | TEXT, b"{}"),
        Frame::BadOpcode => frame(FIN | 3, b"x"),
        Frame::Binary => frame(FIN | BINARY, b"{}"),
        Frame::LongControl => frame(FIN | PING, &[b'a'; 126]),
        Frame::FragmentedControl => frame(PING, b"a"),
        Frame::Orphan => frame(FIN | CONTINUATION, b"x"),
        Frame::Nested => [frame(TEXT, b"{"), frame(FIN | TEXT, b"}")].concat(),
        Frame::LongLength => b"\x81\x7e\x00\x02{}".to_vec(),
        Frame::Big => {
            line.send(&header(FIN | TEXT, 100 << 20))?;
            (0..1600).try_for_each(|_| line.send(&[b'a'; 65_536]))?;
            Vec::new()
        }
        Frame::FragmentsForever => {
            line.send(&frame(TEXT, b"["))?;
            let fragment = frame(CONTINUATION, &b"1,".repeat(8192));
            loop {
                line.send(&fragment)?;
            }
        }
        Frame::FragmentsOk => {
            let symbol = line.symbol();
            let mut text = line.wrapped(&symbol, &text::trade(&symbol, line.ids(1))).into_bytes();
            text.resize(2000, b' ');
            for (at, piece) in text.chunks(2).enumerate() {
                let first = if at == 0 { TEXT } else { CONTINUATION } | if at == 999 { FIN } else { 0 };
                line.send(&frame(first, piece))?;
                if at % 100 == 50 {
                    line.send(&frame(FIN | PING, at.to_string().as_bytes()))?;
                }
            }
            return feed(line);
        }
        Frame::Trickle => {
            line.send(&header(FIN | TEXT, 4000))?;
            return trickle(line, &[b' '; 4000]);
        }
        Frame::PingFlood => {
            let pings = frame(FIN | PING, b"x").repeat(100);
            loop {
                line.send(&pings)?;
                line.attend(Duration::from_millis(10), Ack::Right)?;
            }
        }
        Frame::PongUnasked => {
            (0..50).try_for_each(|_| line.send(&frame(FIN | PONG, b"zz")))?;
            return feed(line);
        }
    };
    line.send(&bytes)?;
    line.attend(FOREVER, Ack::Right)
}

/// One byte at a time; a client that leaves is noticed by what it no longer takes.
fn trickle(line: &mut Line, bytes: &[u8]) -> Go {
    for byte in bytes {
        line.send(&[*byte])?;
        line.pause(BYTE_EVERY)?;
    }
    line.silence()
}

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(3600);
/// Slow enough that no deadline of a few seconds is met, and fast enough that none for silence strikes.
const BYTE_EVERY: Duration = Duration::from_millis(100);
const TRADE_EVERY: Duration = Duration::from_millis(100);
