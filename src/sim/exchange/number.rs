//! Numbers as the exchange writes them.

use crate::fixed::{Fixed, Wide};

/// Decimals of every number on spot, and of every mark price.
pub const EIGHT: u8 = 8;

/// A number on its way to the wire.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    units: i128,
    decimals: u8,
}

/// Prints with so many decimals. Everything the exchange makes lies on its grid, so nothing is lost.
pub fn number(value: impl Into<Units>, decimals: u8) -> Number {
    Number { units: value.into().0, decimals: decimals.min(EIGHT) }
}

/// Units of 1e-8, however wide.
#[derive(Clone, Copy, Debug)]
pub struct Units(i128);

impl From<Fixed> for Units {
    fn from(value: Fixed) -> Self {
        Self(i128::from(value.0))
    }
}

impl From<Wide> for Units {
    fn from(value: Wide) -> Self {
        Self(value.0)
    }
}

impl std::fmt::Display for Number {
    /// Digit by digit: a format string with a width takes several times as long, and frames are mostly numbers.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decimals = usize::from(self.decimals);
        let mut rest = self.units.unsigned_abs() / 10_u128.pow(u32::from(EIGHT - self.decimals));
        // From behind: at most 39 digits, a point and a sign.
        let (mut text, mut at) = ([b'-'; 41], 41);
        for place in 0.. {
            if rest == 0 && place > decimals {
                break;
            }
            if place > 0 && place == decimals {
                at -= 1;
                text[at] = b'.';
            }
            let (tens, digit) = match u64::try_from(rest) {
                Ok(small) => (u128::from(small / 10), (small % 10) as u8),
                Err(_) => (rest / 10, (rest % 10) as u8),
            };
            at -= 1;
            text[at] = b'0' + digit;
            rest = tens;
        }
        at -= usize::from(self.units < 0);
        f.write_str(std::str::from_utf8(&text[at..]).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_exactly_their_decimals() {
        assert_eq!(number(Fixed(6_412_340_000_000), 2).to_string(), "64123.40");
        assert_eq!(number(Fixed(-1_230), 8).to_string(), "-0.00001230");
        assert_eq!(number(Wide(700_000_000), 0).to_string(), "7");
        assert_eq!(number(Fixed::ZERO, 0).to_string(), "0");
        assert_eq!(number(Fixed::ZERO, 2).to_string(), "0.00");
        assert_eq!(number(Fixed(50_000_000), 1).to_string(), "0.5");
        let least = "-1701411834604692317316873037158.84105728";
        assert_eq!(number(Wide(i128::MIN), 8).to_string(), least);
        assert_eq!(
            number(Wide(i128::from(u64::MAX) * 100_000_000 + 50_000_000), 3).to_string(),
            "18446744073709551615.500"
        );
    }
}
