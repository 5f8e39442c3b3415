//! What one value must look like, and the words for it. Nothing here quotes a value.

use super::url::Url;
use crate::time::Span;
use rust_decimal::Decimal;
use std::borrow::Cow;
use toml::de::DeValue;

/// How one value is read.
pub(super) struct Rule<T> {
    /// The TOML type it has; a value of another type is named by its type.
    pub(super) kind: &'static str,
    /// Completes "expected …".
    pub(super) expected: Cow<'static, str>,
    pub(super) read: Reader<T>,
}

type Reader<T> = Box<dyn Fn(&DeValue<'_>) -> Option<T>>;

/// A string that `read` accepts.
pub(super) fn text<T: 'static>(
    expected: impl Into<Cow<'static, str>>,
    read: impl Fn(&str) -> Option<T> + 'static,
) -> Rule<T> {
    Rule { kind: "string", expected: expected.into(), read: Box::new(move |value| read(value.as_str()?)) }
}

/// `true` or `false`.
pub(super) fn switch() -> Rule<bool> {
    Rule { kind: "boolean", expected: "true or false".into(), read: Box::new(|value| value.as_bool()) }
}

/// A whole number of this range, both ends included.
pub(super) fn whole<T: TryFrom<i64> + 'static>(min: i64, max: i64) -> Rule<T> {
    let read = move |value: &DeValue<'_>| {
        let integer = value.as_integer()?;
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
        (min..=max).contains(&number).then(|| T::try_from(number).ok())?
    };
    Rule { kind: "integer", expected: format!("a whole number from {min} to {max}").into(), read: Box::new(read) }
}

/// One of these words.
pub(super) fn one_of<T: Copy + 'static>(words: &'static [(&'static str, T)]) -> Rule<T> {
    let quoted: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    text(quoted.join(" or "), move |text| words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning))
}

/// A duration of this range, both ends included.
pub(super) fn span(min: Span, max: Span) -> Rule<Span> {
    let expected = format!("a duration from \"{}\" to \"{}\", such as \"10s\" or \"250ms\"", exact(min), exact(max));
    text(expected, move |text| parse_span(text).filter(|span| (min..=max).contains(span)))
}

/// A duration of this range, or `"0s"` for never.
pub(super) fn span_or_never(min: Span, max: Span) -> Rule<Span> {
    let expected = format!("a duration from \"{}\" to \"{}\", or \"0s\" for never", exact(min), exact(max));
    text(expected, move |text| parse_span(text).filter(|span| *span == Span::ZERO || (min..=max).contains(span)))
}

/// An exact decimal above zero and up to `max`, in quotes.
pub(super) fn decimal(max: i64) -> Rule<Decimal> {
    text(format!("a decimal number in quotes, above 0 and at most {max}"), move |text| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number = Decimal::from_str_exact(text).ok().filter(|_| plain)?;
        (number > Decimal::ZERO && number <= Decimal::from(max)).then_some(number)
    })
}

/// The name of an environment variable.
///
/// A secret put here by mistake would be printed as the name of a variable that is not set. So a name has the form of
/// one, and a long one has an underscore: the venue's keys (64 letters and digits) do not pass.
pub(super) fn env_name() -> Rule<String> {
    text("the name of an environment variable, never the secret itself", |text| {
        let form = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let start = text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        let like_a_name = text.len() <= 20 || (text.len() <= 60 && text.contains('_'));
        (form && start && like_a_name).then(|| text.to_owned())
    })
}

/// Where plain text without TLS is accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    /// On this machine alone.
    Loopback,
    /// In private networks as well.
    Private,
}

/// An address of these schemes, the one with TLS first.
pub(super) fn url(schemes: [&'static str; 2], plain: Plain) -> Rule<Url> {
    let [tls, bare] = schemes;
    let hosts = match plain {
        Plain::Loopback => "loopback hosts only",
        Plain::Private => "loopback hosts and private addresses only",
    };
    text(format!("an address {tls}://host:port/path, without user, query or fragment; {bare}:// for {hosts}"), {
        move |text| {
            let url = Url::parse(text)?;
            let near = url.is_loopback() || (plain == Plain::Private && url.is_private());
            (url.scheme == tls || (url.scheme == bare && near)).then_some(url)
        }
    })
}

/// As the rule, but `""` stands for "off".
pub(super) fn or_off<T: 'static>(rule: Rule<T>) -> Rule<Option<T>> {
    Rule {
        kind: rule.kind,
        expected: format!("{}, or \"\" for off", rule.expected).into(),
        read: Box::new(move |value| match value.as_str() {
            Some("") => Some(None),
            _ => (rule.read)(value).map(Some),
        }),
    }
}

/// Text for people: something, not too long, nothing that moves a cursor.
pub(super) fn label(expected: &'static str) -> Rule<String> {
    text(expected, |text| {
        let fits = (1..=64).contains(&text.len()) && !text.chars().any(char::is_control);
        fits.then(|| text.to_owned())
    })
}

/// The name of a file or directory.
pub(super) fn path(expected: &'static str) -> Rule<String> {
    text(expected, |text| {
        let fits = (1..=4096).contains(&text.len()) && !text.chars().any(char::is_control);
        fits.then(|| text.to_owned())
    })
}

/// A duration as people write it: a whole number and `us`, `ms`, `s`, `m` or `h`.
pub fn parse_span(text: &str) -> Option<Span> {
    let (digits, unit) = text.split_at(text.bytes().position(|byte| !byte.is_ascii_digit())?);
    let unit = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    digits.parse::<u64>().ok()?.checked_mul(unit).map(Span::from_ns)
}

/// A duration such that [`parse_span`] gives it back, in the largest unit that holds it exactly.
pub(super) fn exact(span: Span) -> String {
    let (name, unit) = UNITS.iter().find(|(_, unit)| span.as_ns().is_multiple_of(*unit)).unwrap_or(&("us", 1_000));
    if span == Span::ZERO { "0s".to_owned() } else { format!("{}{name}", span.as_ns() / unit) }
}

/// With their nanoseconds, longest first.
const UNITS: [(&str, u64); 5] =
    [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_exactly() {
        for (text, span) in [
            ("10s", Span::from_secs(10)),
            ("250ms", Span::from_ms(250)),
            ("2m", Span::from_secs(120)),
            ("23h", Span::from_secs(82_800)),
            ("0s", Span::ZERO),
            ("1500ms", Span::from_ms(1_500)),
            ("50us", Span::from_us(50)),
        ] {
            assert_eq!(parse_span(text), Some(span), "{text}");
            assert_eq!(exact(span), text);
        }
        for text in ["", "10", "s", "-1s", "1.5s", "1 s", "1d", "1S", "99999999999999999999s", "6000000h", "+1s"] {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    #[test]
    fn a_key_in_the_place_of_a_name_is_no_name() {
        let rule = env_name();
        let read = |text: &str| (rule.read)(&DeValue::String(text.into()));
        assert!(read("BINANCE_API_KEY").is_some());
        assert!(read("token").is_some());
        for text in ["", "A B", "1A", "$KEY", "a".repeat(64).as_str(), "123456:ABC-DEF", "x".repeat(21).as_str()] {
            assert!(read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn decimals_are_plain_and_exact() {
        let rule = decimal(100);
        let read = |text: &str| (rule.read)(&DeValue::String(text.into()));
        assert_eq!(read("2.0"), Some(Decimal::new(20, 1)));
        for text in ["", "0", "-1", "1e1", "100.1", "1_0", "+1", "NaN", "0.00000000000000000000000000000000001"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
