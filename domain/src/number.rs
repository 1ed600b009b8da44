//! Exact decimal numbers of any size, as JSON writes them.
//!
//! A float would change what a sender wrote, and a decimal of fixed width would have to refuse or
//! round fields that nothing is reckoned from. So a number keeps all its digits.

use std::{cmp::Ordering, fmt};

/// An exact decimal number. Equal values are equal however they were written: `1`, `1.0`, `10e-1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Number {
    negative: bool,
    /// Without leading and trailing zeros; empty for zero.
    digits: String,
    /// The value is 0.DIGITS × 10^point.
    point: i64,
}

impl Number {
    /// Reads a number in JSON's notation. `None` when it is not in that notation, or when its
    /// exponent does not fit into 64 bits.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (rest, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let unsigned = exponent.map(|e| e.strip_prefix(['+', '-']).unwrap_or(e));
        if !all_digits(whole)
            || (whole.len() > 1 && whole.starts_with('0'))
            || !fraction.is_none_or(all_digits)
            || !unsigned.is_none_or(all_digits)
        {
            return None;
        }
        let written = format!("{whole}{}", fraction.unwrap_or_default());
        let significant = written.trim_start_matches('0');
        let digits = significant.trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self {
                negative: false,
                digits: String::new(),
                point: 0,
            });
        }
        let exponent: i64 = exponent.map_or(Ok(0), str::parse).ok()?;
        let leading_zeros = written.len() - significant.len();
        let point = exponent
            .checked_add(i64::try_from(whole.len()).ok()?)?
            .checked_sub(i64::try_from(leading_zeros).ok()?)?;
        Some(Self {
            negative,
            digits: digits.to_owned(),
            point,
        })
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// Whether it has no fraction.
    pub fn is_whole(&self) -> bool {
        self.fraction_digits() == 0
    }

    /// How many digits stand before the decimal point, leading zeros not counted.
    pub fn integer_digits(&self) -> u64 {
        self.point.max(0).unsigned_abs()
    }

    /// How many digits stand after the decimal point, trailing zeros not counted.
    pub fn fraction_digits(&self) -> u64 {
        let length = i64::try_from(self.digits.len()).unwrap_or(i64::MAX);
        length.saturating_sub(self.point).max(0).unsigned_abs()
    }

    /// The number as a count of 10^-`decimals`, without its sign. `None` when it is finer than
    /// that or does not fit.
    pub(crate) fn scaled(&self, decimals: u32) -> Option<u128> {
        if self.digits.is_empty() {
            return Some(0);
        }
        if self.fraction_digits() > u64::from(decimals) {
            return None;
        }
        // What is left to the right of the digits: 10^zeros.
        let length = i64::try_from(self.digits.len()).ok()?;
        let zeros = self
            .point
            .checked_sub(length)?
            .checked_add(i64::from(decimals))?;
        let factor = 10_u128.checked_pow(u32::try_from(zeros).ok()?)?;
        self.digits.parse::<u128>().ok()?.checked_mul(factor)
    }

    /// The number as a whole number. `None` when it has a fraction or does not fit.
    pub fn to_i64(&self) -> Option<i64> {
        let magnitude = i128::try_from(self.scaled(0)?).ok()?;
        i64::try_from(if self.negative { -magnitude } else { magnitude }).ok()
    }

    /// What a canonical encoding is made of: sign, digits, and where the point stands.
    pub(crate) fn parts(&self) -> (bool, &str, i64) {
        (self.negative, &self.digits, self.point)
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |n: &Self| match (n.digits.is_empty(), n.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let magnitude = || {
            self.point
                .cmp(&other.point)
                .then_with(|| self.digits.cmp(&other.digits))
        };
        sign(self).cmp(&sign(other)).then_with(|| match sign(self) {
            0 => Ordering::Equal,
            1 => magnitude(),
            _ => magnitude().reverse(),
        })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<u32> for Number {
    fn from(number: u32) -> Self {
        let text = number.to_string();
        let digits = text.trim_matches('0');
        let point = if digits.is_empty() { 0 } else { text.len() };
        Self {
            negative: false,
            digits: digits.to_owned(),
            point: i64::try_from(point).unwrap_or(i64::MAX),
        }
    }
}

/// Plain digits where that is short, and an exponent where it is not.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PLAIN_MAX: i64 = 200;
        if self.negative {
            f.write_str("-")?;
        }
        let length = i64::try_from(self.digits.len()).unwrap_or(i64::MAX);
        let repeat = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
        if self.digits.is_empty() {
            f.write_str("0")
        } else if self.point >= length && self.point <= PLAIN_MAX {
            write!(f, "{}{}", self.digits, repeat(self.point - length))
        } else if self.point > 0 && self.point < length {
            let (whole, fraction) = self
                .digits
                .split_at(usize::try_from(self.point).unwrap_or(0));
            write!(f, "{whole}.{fraction}")
        } else if self.point <= 0 && self.point > -PLAIN_MAX {
            write!(f, "0.{}{}", repeat(-self.point), self.digits)
        } else {
            write!(f, "0.{}e{}", self.digits, self.point)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn n(text: &str) -> Number {
        Number::parse(text).unwrap_or_else(|| panic!("{text} is a number"))
    }

    #[test]
    fn the_same_value_is_the_same_number() {
        for text in ["1", "1.0", "1.000", "10e-1", "0.1E1", "0.01e+2", "1e0"] {
            assert_eq!(n(text), n("1"), "{text}");
        }
        assert_eq!(n("-0.00"), n("0"));
        assert_eq!(n("0e99999999999999999999"), n("0"));
        assert_eq!(Number::from(0), n("0"));
        assert_eq!(Number::from(1200), n("1.2e3"));
        assert_ne!(n("0.30000000000000000000000000000001"), n("0.3"));
    }

    #[test]
    fn only_the_notation_of_json_is_read() {
        for text in [
            "",
            "-",
            "+1",
            ".5",
            "5.",
            "01",
            "1e",
            "1e+",
            "0x10",
            "1_000",
            "1,5",
            " 1",
            "1 ",
            "NaN",
            "--1",
            "1.2.3",
            "1e5e5",
            "١",
            "1e99999999999999999999",
        ] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_told_from_others() {
        assert_eq!(n("1e3").to_i64(), Some(1000));
        assert_eq!(n("-12.0").to_i64(), Some(-12));
        assert_eq!(n("9223372036854775807").to_i64(), Some(i64::MAX));
        assert_eq!(n("-9223372036854775808").to_i64(), Some(i64::MIN));
        assert_eq!(n("9223372036854775808").to_i64(), None);
        assert_eq!(n("1e400").to_i64(), None);
        assert_eq!(n("0.5").to_i64(), None);
        assert_eq!(n("1e-400").to_i64(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_written_is_read_back(mantissa: i128, exponent in -400_i64..400) {
            let number = n(&format!("{mantissa}e{exponent}"));
            if !number.to_string().contains('e') {
                prop_assert_eq!(&n(&number.to_string()), &number);
            }
        }

        #[test]
        fn order_is_that_of_the_values(a in -10_000_i64..10_000, b in -10_000_i64..10_000, s in 0_u8..4, t in 0_u8..4) {
            // a / 10^s against b / 10^t, by cross multiplication.
            let expected = (a * 10_i64.pow(t.into())).cmp(&(b * 10_i64.pow(s.into())));
            prop_assert_eq!(n(&format!("{a}e-{s}")).cmp(&n(&format!("{b}e-{t}"))), expected);
        }

        #[test]
        fn arbitrary_text_does_no_harm(text in "[-+0-9.eE]{0,24}") {
            if let Some(number) = Number::parse(&text) {
                let _ = (number.to_string(), number.to_i64(), number.scaled(9), number.cmp(&n("1")));
            }
        }
    }
}
