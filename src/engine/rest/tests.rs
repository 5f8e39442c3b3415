//! The desk in virtual time, with answers typed by hand.

use super::*;
use crate::config::Config;

const BTC: SymbolId = SymbolId(0);
const TRADES: Ask = Ask::Trades { symbol: BTC, from_id: None, limit: 1000 };
const ROW: &str = r#"[{"a":5,"p":"1.5","q":"2","f":1,"l":1,"T":1795215900000,"m":true}]"#;
const UTC_MS: i64 = 1_795_215_900_000;

struct Table {
    desk: RestDesk,
    symbols: Symbols,
    now: Now,
    next: u64,
}

impl Table {
    fn new() -> Self {
        let ws = Url::parse("ws://venue.example/market").unwrap();
        let config = Config::for_exchange(&["BTCUSDT"], ws, Url::parse("https://venue.example/x"), None);
        Self {
            desk: RestDesk::new(&config),
            symbols: Symbols::new(["BTCUSDT"]),
            now: Now { mono: Instant::ZERO, utc_ns: UTC_MS * 1_000_000 },
            next: 0,
        }
    }

    fn ask(&mut self) -> Result<(), NotAsked> {
        self.desk.ask(TRADES, &self.symbols)
    }

    fn pass(&mut self, span: Span) {
        self.now = Now { mono: self.now.mono + span, utc_ns: self.now.utc_ns + span.as_ns() as i64 };
        self.desk.handle_timeout(self.now.mono);
    }

    fn work(&mut self) -> Option<(JobId, String, Instant)> {
        let id = JobId(self.next);
        let Work { job: Job::Get { base, target }, deadline } = self.desk.poll_work(id, self.now.mono)? else {
            panic!("another job")
        };
        self.next += 1;
        Some((id, format!("{base}{target}"), deadline))
    }

    fn reply(&mut self, id: JobId, reply: Reply) -> Option<Result<Answer, Failure>> {
        self.desk.handle_reply(id, reply, &self.symbols, self.now);
        self.desk.poll_outcome().map(|(_, outcome)| outcome)
    }

    /// Asks and has it answered like this.
    fn round(&mut self, response: Response) -> Result<Answer, Failure> {
        self.ask().unwrap();
        let (id, ..) = self.work().unwrap();
        self.reply(id, Reply::Got(Ok(response))).unwrap()
    }

    fn wake(&self) -> Instant {
        self.desk.deadline()
    }

    fn count(&self, kind: ResultKind) -> u64 {
        self.desk.counts().filter(|(_, of, _)| *of == kind).map(|(.., count)| count).sum()
    }
}

fn response(status: u16, body: &str) -> Response {
    Response { status, body: body.into(), ..Response::default() }
}

#[test]
fn an_ask_becomes_a_call_and_its_answer() {
    let mut table = Table::new();
    assert_eq!(table.wake(), Instant::FAR);
    table.ask().unwrap();
    assert!(table.wake() <= table.now.mono);
    let (id, url, deadline) = table.work().unwrap();
    assert_eq!(url, "https://venue.example/x/fapi/v1/aggTrades?symbol=BTCUSDT&limit=1000");
    assert_eq!((deadline, table.wake()), (Instant::ZERO + Span::from_secs(5), deadline));
    let Some(Ok(Answer::Trades(trades))) = table.reply(id, Reply::Got(Ok(response(200, ROW)))) else { panic!() };
    assert_eq!((trades[0].id, trades[0].symbol), (5, BTC));
    assert_eq!(table.reply(id, Reply::Got(Ok(response(200, ROW)))), None, "answered once");
    assert!(table.desk.is_idle());
    assert_eq!((table.count(ResultKind::Ok), table.wake()), (1, Instant::FAR));
}

#[test]
fn four_calls_at_once_and_each_has_a_deadline_of_its_own() {
    let mut table = Table::new();
    (0..6).for_each(|_| table.ask().unwrap());
    let first = table.work().unwrap();
    table.pass(Span::from_secs(1));
    let others: Vec<_> = std::iter::from_fn(|| table.work()).collect();
    assert_eq!((others.len(), table.wake()), (3, first.2));
    table.pass(Span::from_secs(4));
    assert_eq!(table.desk.poll_outcome(), Some((TRADES, Err(Failure::Timeout(Span::from_secs(5))))));
    assert_eq!(table.reply(first.0, Reply::Got(Ok(response(200, ROW)))), None, "too late");
    assert!(table.work().is_some(), "its place is free");
    table.pass(Span::from_secs(1));
    assert_eq!(table.count(ResultKind::Timeout), 4);
    // A failure at the deadline is the lane's own clock; one before it is a failure.
    let (id, ..) = table.work().unwrap();
    let gone = || Reply::Got(Err(GetFailure { words: "refused".into(), sent: false }));
    assert_eq!(table.desk.poll_outcome().map(|_| ()), Some(()));
    while table.desk.poll_outcome().is_some() {}
    assert_eq!(table.reply(id, gone()), Some(Err(Failure::Failed("refused".into()))));
    assert_eq!(table.reply(JobId(4), Reply::Overloaded), Some(Err(Failure::Overloaded)));
}

#[test]
fn after_a_429_or_418_nothing_goes_before_the_time_that_was_named() {
    let banned = |until: i64| format!(r#"{{"code":-1003,"msg":"Way too many; IP banned until {until}. Please"}}"#);
    let retry = |s| Some(Span::from_secs(s));
    for (status, retry_after, body, silent_s) in [
        (429, retry(7), String::new(), 7),
        (418, retry(7), banned(UTC_MS + 99_000), 7),
        (418, None, banned(UTC_MS + 99_000), 99),
        (429, None, r#"{"code":-1003,"msg":"Too many requests"}"#.to_owned(), 60),
        (418, None, "<html>".to_owned(), 60),
        (418, None, banned(UTC_MS - 3_600_000), 60),
        (429, retry(0), String::new(), 1),
        (418, None, banned(UTC_MS + 1_000_000_000_000), 3 * 24 * 3600),
    ] {
        let mut table = Table::new();
        let outcome = table.round(Response { status, retry_after, used_weight: None, body: body.into_bytes() });
        assert!(matches!(outcome, Err(Failure::Refused { status: said, .. }) if said == status), "{outcome:?}");
        let until = Instant::ZERO + Span::from_secs(silent_s);
        let block = table.desk.poll_block().unwrap();
        assert_eq!((block.until, table.desk.poll_block()), (until, None), "{}", block.words);
        table.ask().unwrap();
        assert_eq!((table.work(), table.wake()), (None, until));
        table.pass(Span::from_ns(Span::from_secs(silent_s).as_ns() - 1));
        assert_eq!(table.work(), None);
        table.pass(Span::from_ns(1));
        assert!(table.work().is_some());
    }
}

#[test]
fn other_refusals_and_bad_answers_are_told_in_words() {
    let mut table = Table::new();
    for (response, words) in [
        (response(400, r#"{"code":-1121,"msg":"Invalid symbol."}"#), "HTTP 400: -1121 Invalid symbol."),
        (response(403, "<html>"), "HTTP 403"),
        (response(302, ""), "HTTP 302, and redirects are not followed"),
        (response(200, &ROW.replace("\"1.5\"", "\"-1\"")), "answer refused whole: row 0, \"p\": expected a number"),
    ] {
        let words_said = table.round(response).unwrap_err().to_string();
        assert!(words_said.starts_with(words), "{words_said}");
    }
    assert_eq!((table.count(ResultKind::Refused), table.count(ResultKind::Failed)), (3, 1));
    assert_eq!(table.desk.blocked_until(), Instant::ZERO);
}

#[test]
fn the_venues_figure_holds_calls_back() {
    let mut table = Table::new();
    table.round(Response { used_weight: Some(1_910), ..response(200, "[]") }).unwrap();
    table.ask().unwrap();
    assert_eq!((table.work(), table.wake()), (None, Instant::ZERO + Span::from_secs(60)));
    table.pass(Span::from_secs(60));
    assert!(table.work().is_some());
}

#[test]
fn a_full_desk_and_one_without_an_address_say_so() {
    let mut table = Table::new();
    (0..WAITING_MAX).for_each(|_| table.ask().unwrap());
    assert_eq!(table.ask(), Err(NotAsked::Full));
    assert_eq!(table.count(ResultKind::Overloaded), 1);
    table.work().unwrap();
    table.desk.stop();
    assert_eq!((table.ask(), table.wake()), (Err(NotAsked::Unavailable), Instant::FAR));
    assert!(!table.desk.is_available() && table.desk.is_idle() && table.work().is_none());
}
