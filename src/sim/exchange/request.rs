//! What clients say, read strictly: control messages, upgrade targets, REST queries.

use crate::config::Market;
use serde::Deserialize;
use serde_json::Value;

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub ask: Ask,
    /// Its id as JSON text, to be repeated in the reply.
    pub id: String,
}

/// What a control message asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Add these streams.
    Subscribe(Vec<String>),
    /// Remove these streams.
    Unsubscribe(Vec<String>),
    /// Name the streams.
    List,
    /// Wrap payloads, or do not.
    SetCombined(bool),
    /// Are payloads wrapped?
    GetCombined,
}

/// Why a message is refused, in the venue's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The venue's code.
    pub code: i32,
    /// The venue's message.
    pub msg: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Method {
    Subscribe,
    Unsubscribe,
    ListSubscriptions,
    SetProperty,
    GetProperty,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    method: Method,
    params: Option<Vec<Value>>,
    id: Option<Value>,
}

fn refused(code: i32, msg: impl Into<String>) -> Refused {
    Refused { code, msg: msg.into() }
}

/// Reads a control message.
///
/// # Errors
/// [`Refused`] with the code and text of the venue.
pub fn control(text: &str, market: Market) -> Result<Request, Refused> {
    let invalid = |error: serde_json::Error| {
        if error.is_data() {
            refused(2, format!("Invalid request: {error}"))
        } else {
            refused(3, format!("Invalid JSON: {error}"))
        }
    };
    let envelope: Envelope = serde_json::from_str(text).map_err(invalid)?;
    let id = request_id(envelope.id, market)?;
    let params = envelope.params;
    let ask = match envelope.method {
        Method::Subscribe => Ask::Subscribe(streams(params)?),
        Method::Unsubscribe => Ask::Unsubscribe(streams(params)?),
        Method::ListSubscriptions => match params {
            Some(params) if !params.is_empty() => return Err(refused(2, "Invalid request: too many parameters")),
            _ => Ask::List,
        },
        Method::SetProperty => match property(params, 2)? {
            Some(Value::Bool(combined)) => Ask::SetCombined(combined),
            _ => return Err(refused(1, "Invalid value type: expected Boolean")),
        },
        Method::GetProperty => {
            property(params, 1)?;
            Ask::GetCombined
        }
    };
    Ok(Request { ask, id })
}

fn request_id(id: Option<Value>, market: Market) -> Result<String, Refused> {
    let good = match (&id, market) {
        (Some(Value::Number(number)), Market::Usdm) => number.is_u64(),
        (Some(Value::Number(number)), Market::Spot) => number.is_u64() || number.is_i64(),
        (Some(Value::String(text)), Market::Spot) => {
            text.len() <= 36 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        }
        (None, Market::Spot) => true,
        _ => false,
    };
    if !good {
        return Err(refused(2, "Invalid request: request ID must be an unsigned integer"));
    }
    Ok(id.map_or_else(|| "null".to_owned(), |id| id.to_string()))
}

fn streams(params: Option<Vec<Value>>) -> Result<Vec<String>, Refused> {
    let params = params.ok_or_else(|| refused(2, "Invalid request: missing field `params`"))?;
    params
        .into_iter()
        .map(|param| {
            let name = param.as_str().map(str::to_owned);
            name.ok_or_else(|| refused(2, "Invalid request: stream name must be a string"))
        })
        .collect()
}

fn property(params: Option<Vec<Value>>, wanted: usize) -> Result<Option<Value>, Refused> {
    let mut params = params.unwrap_or_default().into_iter();
    match params.next() {
        Some(Value::String(name)) if name == "combined" => {}
        Some(Value::String(_)) => return Err(refused(0, "Unknown property")),
        _ => return Err(refused(2, "Invalid request: property name must be a string")),
    }
    if params.len() >= wanted {
        return Err(refused(2, "Invalid request: too many parameters"));
    }
    Ok(params.next())
}

/// Which root of the stream host a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// Futures `/public`: depth and bookTicker.
    Public,
    /// Futures `/market`: trades, marks, candles.
    Market,
    /// Futures `/private`: user data.
    Private,
    /// The old futures path without a root: accepts everything, delivers nothing.
    Unrouted,
    /// Spot has no roots.
    Spot,
}

/// An upgrade target, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub root: Root,
    /// Payloads are wrapped to begin with.
    pub combined: bool,
    /// Streams named in the URL, decoded.
    pub streams: Vec<String>,
}

/// Reads an upgrade target, `/market/stream?streams=a/b`. `None` if there is no such path.
pub fn target(text: &str, market: Market) -> Option<Target> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let roots = [("/public", Root::Public), ("/market", Root::Market), ("/private", Root::Private)];
    let routed = roots.iter().find_map(|(prefix, root)| Some((*root, path.strip_prefix(prefix)?)));
    let (root, rest) = match (market, routed) {
        (Market::Spot, _) => (Root::Spot, path),
        (Market::Usdm, Some(routed)) => routed,
        (Market::Usdm, None) => (Root::Unrouted, path),
    };
    let names = |list: &str| -> Option<Vec<String>> {
        list.split('/').filter(|name| !name.is_empty()).map(percent_decode).collect()
    };
    if rest == "/stream" {
        let list = query.split('&').find_map(|pair| pair.strip_prefix("streams=")).unwrap_or("");
        // A slash between names may come encoded, too.
        return Some(Target { root, combined: true, streams: names(&percent_decode(list)?)? });
    }
    let list = rest.strip_prefix("/ws")?;
    if !list.is_empty() && !list.starts_with('/') {
        return None;
    }
    Some(Target { root, combined: false, streams: names(list)? })
}

/// Decodes `%XX`. `None` if that is not UTF-8, or cut short.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (hex(rest.next()?)?, hex(rest.next()?)?);
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The pairs of a query, decoded, in their order. `None` if one cannot be decoded.
pub fn query(text: &str) -> Option<Vec<(String, String)>> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decode(name)?, percent_decode(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> (i32, String) {
        control(text, Market::Usdm).map_err(|refused| (refused.code, refused.msg)).unwrap_err()
    }

    #[test]
    fn control_messages_are_read_strictly() {
        let subscribe = r#"{"method":"SUBSCRIBE","params":["btcusdt@aggTrade","币安人生usdt@kline_1m"],"id":1}"#;
        let streams = vec!["btcusdt@aggTrade".to_owned(), "币安人生usdt@kline_1m".to_owned()];
        assert_eq!(control(subscribe, Market::Usdm), Ok(Request { ask: Ask::Subscribe(streams), id: "1".to_owned() }));
        let ask = |text| control(text, Market::Usdm).map(|request| request.ask);
        assert_eq!(ask(r#"{"method":"LIST_SUBSCRIPTIONS","id":3}"#), Ok(Ask::List));
        assert_eq!(ask(r#"{"method":"SET_PROPERTY","params":["combined",true],"id":5}"#), Ok(Ask::SetCombined(true)));
        assert_eq!(ask(r#"{"method":"GET_PROPERTY","params":["combined"],"id":6}"#), Ok(Ask::GetCombined));
        let spot = |id| control(&format!(r#"{{"method":"LIST_SUBSCRIPTIONS","id":{id}}}"#), Market::Spot);
        assert_eq!(spot(r#""a1""#).map(|request| request.id), Ok(r#""a1""#.to_owned()));
        assert_eq!(spot("-5").map(|request| request.id), Ok("-5".to_owned()));
        assert_eq!(spot("null").map(|request| request.id), Ok("null".to_owned()));
        assert!(spot("1.5").is_err());
    }

    #[test]
    fn refusals_carry_the_words_of_the_venue() {
        let id = (2, "Invalid request: request ID must be an unsigned integer".to_owned());
        assert_eq!(error(r#"{"method":"LIST_SUBSCRIPTIONS","id":"x"}"#), id);
        assert_eq!(error(r#"{"method":"LIST_SUBSCRIPTIONS"}"#), id);
        assert_eq!(error(r#"{"method":"LIST_SUBSCRIPTIONS","id":-1}"#), id);
        assert_eq!(
            error(r#"{"method":"SUBSCRIBED","params":[],"id":1}"#).1,
            "Invalid request: unknown variant `SUBSCRIBED`, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, \
             `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY` at line 1 column 22"
        );
        assert_eq!(error(r#"{"params":[],"id":1}"#).1, "Invalid request: missing field `method` at line 1 column 20");
        assert_eq!(error("hello"), (3, "Invalid JSON: expected value at line 1 column 1".to_owned()));
        let property = |params| error(&format!(r#"{{"method":"SET_PROPERTY","params":{params},"id":1}}"#));
        assert_eq!(property(r#"["combined",1]"#), (1, "Invalid value type: expected Boolean".to_owned()));
        assert_eq!(property(r#"["other",true]"#), (0, "Unknown property".to_owned()));
        assert_eq!(property("[1,true]"), (2, "Invalid request: property name must be a string".to_owned()));
        assert_eq!(property(r#"["combined",true,1]"#), (2, "Invalid request: too many parameters".to_owned()));
    }

    #[test]
    fn targets_have_roots_on_futures_only() {
        let read = |text, market| target(text, market).map(|t| (t.root, t.combined, t.streams.join(" ")));
        let um = |text| read(text, Market::Usdm);
        assert_eq!(um("/market/ws/a@x/b@y"), Some((Root::Market, false, "a@x b@y".to_owned())));
        assert_eq!(um("/market/stream?streams=a@x/b@y"), Some((Root::Market, true, "a@x b@y".to_owned())));
        assert_eq!(um("/market/stream?streams=a%40x%2Fb@y"), Some((Root::Market, true, "a@x b@y".to_owned())));
        assert_eq!(um("/market/stream"), Some((Root::Market, true, String::new())));
        assert_eq!(um("/stream"), Some((Root::Unrouted, true, String::new())));
        assert_eq!(um("/ws/%E5%B8%81usdt@x"), Some((Root::Unrouted, false, "币usdt@x".to_owned())));
        assert_eq!(um("/private/ws?listenKey=k"), Some((Root::Private, false, String::new())));
        assert_eq!(um("/market"), None);
        assert_eq!(um("/market/wsx"), None);
        assert_eq!(um("/market/ws/%E5"), None);
        assert_eq!(read("/ws", Market::Spot), Some((Root::Spot, false, String::new())));
        assert_eq!(read("/market/ws", Market::Spot), None);
    }
}
