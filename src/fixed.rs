//! Exact decimal numbers as integers at 1e-8: what the venue's decimal strings are on the tape.
//!
//! [`Fixed`] holds prices, quantities and rates (±9.2e10 with eight decimals, the venue's own bound). [`Wide`] holds
//! volumes and products, which can be larger. Neither is ever rounded silently: more than eight significant decimals,
//! an exponent, a sign where none belongs, or too many digits is an error that says so.

use rust_decimal::Decimal;
use std::fmt;

/// Decimals kept: the venue never sends more.
pub const DECIMALS: u32 = 8;
/// One whole unit.
pub const ONE: i64 = 100_000_000;

/// A number of 1e-8 units in 64 bits: a price, a quantity, a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fixed(pub i64);

/// A number of 1e-8 units in 128 bits: a volume, a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wide(pub i128);

/// Why a text is not one of our numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// Nothing, or no digit where one belongs.
    Empty,
    /// A character that is no digit and no decimal point: `NaN`, `1e5`, `+1`.
    Malformed,
    /// More than eight decimals that are not zero.
    TooPrecise,
    /// Does not fit.
    TooLarge,
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty number",
            Self::Malformed => "not a plain decimal number",
            Self::TooPrecise => "more than 8 decimals",
            Self::TooLarge => "number out of range",
        })
    }
}

/// A parsed number and how many decimals its text had, so that it can be printed as the venue wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// In units of 1e-8.
    pub units: i128,
    /// Digits after the point, trailing zeros included; at most 8.
    pub decimals: u8,
}

/// Reads a plain decimal: `-`? digits (`.` digits)?. Leading zeros are fine; zeros beyond the eighth decimal are fine.
///
/// # Errors
/// [`NumberError`] for everything else, and for more than 26 integer digits.
pub fn parse(text: &[u8]) -> Result<Parsed, NumberError> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut units: i128 = 0;
    let mut i = 0;
    while i < digits.len() && digits[i].is_ascii_digit() {
        if i >= 26 && units != 0 {
            return Err(NumberError::TooLarge);
        }
        units = units * 10 + i128::from(digits[i] - b'0');
        i += 1;
    }
    if i == 0 {
        return Err(if digits.is_empty() { NumberError::Empty } else { NumberError::Malformed });
    }
    if units >= 10_i128.pow(26) {
        return Err(NumberError::TooLarge);
    }
    let mut decimals = 0_u32;
    if i < digits.len() {
        if digits[i] != b'.' {
            return Err(NumberError::Malformed);
        }
        i += 1;
        if i == digits.len() {
            return Err(NumberError::Empty);
        }
        while i < digits.len() {
            let digit = digits[i];
            if !digit.is_ascii_digit() {
                return Err(NumberError::Malformed);
            }
            if decimals < DECIMALS {
                units = units * 10 + i128::from(digit - b'0');
                decimals += 1;
            } else if digit != b'0' {
                return Err(NumberError::TooPrecise);
            }
            i += 1;
        }
    }
    units *= 10_i128.pow(DECIMALS - decimals);
    Ok(Parsed { units: if negative { -units } else { units }, decimals: decimals as u8 })
}

impl Fixed {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// Reads a plain decimal that fits 64 bits.
    ///
    /// # Errors
    /// See [`NumberError`].
    pub fn parse(text: &str) -> Result<Self, NumberError> {
        let parsed = parse(text.as_bytes())?;
        i64::try_from(parsed.units).map(Self).map_err(|_| NumberError::TooLarge)
    }

    /// The same number for the edges: configuration, REST, orders.
    pub fn to_decimal(self) -> Decimal {
        Decimal::new(self.0, DECIMALS)
    }

    /// Shown with at least `decimals` decimals, and as many more as it takes to be exact.
    pub fn show(self, decimals: u8) -> Shown {
        Shown { units: i128::from(self.0), decimals }
    }

    /// Price times quantity, exactly, in units of 1e-16.
    pub fn times(self, other: Self) -> i128 {
        i128::from(self.0) * i128::from(other.0)
    }
}

impl Wide {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// Shown with at least `decimals` decimals, and as many more as it takes to be exact.
    pub fn show(self, decimals: u8) -> Shown {
        Shown { units: self.0, decimals }
    }
}

/// A number on its way to a person or a document. See [`Fixed::show`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    units: i128,
    decimals: u8,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.units.unsigned_abs();
        let (whole, mut fraction) = (magnitude / ONE as u128, magnitude % ONE as u128);
        let mut width = DECIMALS as usize;
        while width > usize::from(self.decimals.min(DECIMALS as u8)) && fraction % 10 == 0 {
            fraction /= 10;
            width -= 1;
        }
        let sign = if self.units < 0 { "-" } else { "" };
        if width == 0 { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{fraction:0width$}") }
    }
}

impl serde::Serialize for Shown {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show(0).fmt(f)
    }
}

impl fmt::Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show(0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(i128, u8), NumberError>) {
        assert_eq!(parse(text.as_bytes()).map(|p| (p.units, p.decimals)), expected, "{text:?}");
    }

    #[test]
    fn plain_decimals_are_exact_and_everything_else_is_an_error() {
        check("64123.40", Ok((6_412_340_000_000, 2)));
        check("0.00000001", Ok((1, 8)));
        check("-0.00038167", Ok((-38_167, 8)));
        check("1.0000000000", Ok((100_000_000, 8)));
        check("007", Ok((700_000_000, 0)));
        check("1.000000001", Err(NumberError::TooPrecise));
        check("", Err(NumberError::Empty));
        check("5.", Err(NumberError::Empty));
        for text in [".5", "+1", "1e5", "NaN", "Infinity", "1,5", " 1", "1 ", "--1", "0x10", "1.2.3", "-"] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        check("99999999999999999999999999999999999999999999", Err(NumberError::TooLarge));
        assert_eq!(Fixed::parse("92233720368.54775807"), Ok(Fixed(i64::MAX)));
        assert_eq!(Fixed::parse("92233720368.54775808"), Err(NumberError::TooLarge));
    }

    #[test]
    fn numbers_print_as_the_venue_wrote_them() {
        assert_eq!(Fixed(6_412_340_000_000).show(2).to_string(), "64123.40");
        assert_eq!(Fixed(6_412_340_000_001).show(2).to_string(), "64123.40000001");
        assert_eq!(Fixed(-1).to_string(), "-0.00000001");
        assert_eq!(Wide(700_000_000).to_string(), "7");
        assert_eq!(Fixed(700_000_000).show(200).to_string(), "7.00000000");
    }
}
