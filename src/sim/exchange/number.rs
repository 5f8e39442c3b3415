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
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const ONE: u64 = 100_000_000;
        let sign = if self.units < 0 { "-" } else { "" };
        let magnitude = self.units.unsigned_abs();
        let (whole, fraction) = match u64::try_from(magnitude) {
            Ok(small) => (u128::from(small / ONE), small % ONE),
            Err(_) => (magnitude / u128::from(ONE), (magnitude % u128::from(ONE)) as u64),
        };
        let width = usize::from(self.decimals);
        let fraction = fraction / 10_u64.pow(u32::from(EIGHT - self.decimals));
        if width == 0 { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{fraction:0width$}") }
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
        assert_eq!(
            number(Wide(i128::from(u64::MAX) * 100_000_000 + 50_000_000), 3).to_string(),
            "18446744073709551615.500"
        );
    }
}
