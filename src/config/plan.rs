//! The small language of plan conditions: `METRIC OP OPERAND`. Read here; judged where the metrics are.

use rust_decimal::Decimal;

/// One condition of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Left side.
    pub metric: Metric,
    /// How the sides are compared.
    pub comparison: Comparison,
    /// Right side.
    pub operand: Operand,
}

/// What a metric is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A fixed number.
    Number(Decimal),
    /// Another metric of the same symbol.
    Metric(Metric),
}

/// A figure of one symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Last trade.
    Price,
    /// Mark price.
    Mark,
    /// Index price.
    Index,
    /// Funding rate.
    Funding,
    /// Cumulative delta since UTC midnight.
    Cvd,
    /// Its slope.
    CvdSlope,
    /// Bought less sold quantity.
    Delta(Window),
    /// Quantity bought by takers.
    Buy(Window),
    /// Quantity sold by takers.
    Sell(Window),
    /// Number of trades.
    Trades(Window),
}

/// A window by trade time, ending now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Window {
    /// `10s`
    S10,
    /// `30s`
    S30,
    /// `60s`
    S60,
    /// `300s`
    S300,
}

/// How the sides are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

impl Condition {
    /// The condition in this text, `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (left, rest) = text.split_at(text.find(['<', '>', '=', '!'])?);
        let (comparison, right) =
            COMPARISONS.iter().find_map(|(sign, comparison)| Some((*comparison, rest.strip_prefix(sign)?.trim())))?;
        let metric = Metric::parse(left.trim())?;
        let is_number = right.bytes().all(|byte| byte.is_ascii_digit() || b"+-.".contains(&byte));
        let operand = if is_number {
            Operand::Number(Decimal::from_str_exact(right).ok()?)
        } else {
            Operand::Metric(Metric::parse(right)?)
        };
        Some(Self { metric, comparison, operand })
    }
}

impl Metric {
    fn parse(name: &str) -> Option<Self> {
        if let Some((_, metric)) = PLAIN_METRICS.iter().find(|(known, _)| *known == name) {
            return Some(*metric);
        }
        let (kind, window) = name.split_once('_')?;
        let window = WINDOWS.iter().find(|(known, _)| *known == window)?.1;
        match kind {
            "delta" => Some(Self::Delta(window)),
            "buy" => Some(Self::Buy(window)),
            "sell" => Some(Self::Sell(window)),
            "trades" => Some(Self::Trades(window)),
            _ => None,
        }
    }
}

/// Longer signs first: `>` is the beginning of `>=`.
const COMPARISONS: [(&str, Comparison); 6] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

const PLAIN_METRICS: [(&str, Metric); 6] = [
    ("price", Metric::Price),
    ("mark", Metric::Mark),
    ("index", Metric::Index),
    ("funding", Metric::Funding),
    ("cvd", Metric::Cvd),
    ("cvd_slope", Metric::CvdSlope),
];

const WINDOWS: [(&str, Window); 4] =
    [("10s", Window::S10), ("30s", Window::S30), ("60s", Window::S60), ("300s", Window::S300)];

/// The language in one line, for complaints.
pub(super) const LANGUAGE: &str = "a condition METRIC OP OPERAND: METRIC price, mark, index, funding, cvd, cvd_slope, or \
     delta, buy, sell or trades with _10s, _30s, _60s or _300s; OP > >= < <= == or !=; OPERAND a number or a METRIC";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_metric_sign_operand() {
        let condition = Condition::parse("delta_60s > 0").unwrap();
        assert_eq!(condition.metric, Metric::Delta(Window::S60));
        assert_eq!(condition.comparison, Comparison::Above);
        assert_eq!(condition.operand, Operand::Number(Decimal::ZERO));
        assert_eq!(Condition::parse("price<=-95000.5").unwrap().comparison, Comparison::AtMost);
        assert_eq!(Condition::parse("price != mark").unwrap().operand, Operand::Metric(Metric::Mark));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "price",
            "price 5",
            "volume > 5",
            "delta > 0",
            "delta_61s > 0",
            "price => 5",
            "price = 5",
            "price > ",
            "price > 5 6",
            "price > 1e5",
            "price > 5 and mark > 5",
        ] {
            assert_eq!(Condition::parse(text), None, "{text}");
        }
    }
}
