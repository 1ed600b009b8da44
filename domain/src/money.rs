//! Money: an exact decimal and a currency, never a float.

use std::fmt;

use rust_decimal::Decimal;

use crate::number::Number;

/// The most digits an amount may have before the decimal point.
pub const AMOUNT_INTEGER_DIGITS_MAX: u64 = 18;
/// The most digits an amount may have after the decimal point, trailing zeros not counted.
pub const AMOUNT_FRACTION_DIGITS_MAX: u32 = 9;

/// Why a number is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// The text is no decimal number.
    #[error("it is not a decimal number")]
    NotANumber,
    /// The number is below zero.
    #[error("it is negative")]
    Negative,
    /// The number has too many digits before the point.
    #[error("it has more than {AMOUNT_INTEGER_DIGITS_MAX} digits before the decimal point")]
    TooLarge,
    /// The number has too many digits after the point.
    #[error("it has more than {AMOUNT_FRACTION_DIGITS_MAX} digits after the decimal point")]
    TooFine,
}

/// An amount of money, zero or more, in units of its currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(Decimal);

impl Amount {
    /// Reads an amount in JSON's notation for numbers.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        Self::try_from(&Number::parse(text).ok_or(AmountError::NotANumber)?)
    }

    /// The amount as an exact decimal.
    pub const fn get(self) -> Decimal {
        self.0
    }

    /// The amount in billionths of its currency's unit.
    pub(crate) fn billionths(self) -> u128 {
        let raised = 10_u128.pow(AMOUNT_FRACTION_DIGITS_MAX.saturating_sub(self.0.scale()));
        self.0.mantissa().unsigned_abs() * raised
    }
}

impl TryFrom<&Number> for Amount {
    type Error = AmountError;

    fn try_from(number: &Number) -> Result<Self, AmountError> {
        if number.is_negative() {
            return Err(AmountError::Negative);
        }
        if number.integer_digits() > AMOUNT_INTEGER_DIGITS_MAX {
            return Err(AmountError::TooLarge);
        }
        let scaled = number
            .scaled(AMOUNT_FRACTION_DIGITS_MAX)
            .and_then(|scaled| i128::try_from(scaled).ok())
            .ok_or(AmountError::TooFine)?;
        Decimal::try_from_i128_with_scale(scaled, AMOUNT_FRACTION_DIGITS_MAX)
            .map(|decimal| Self(decimal.normalize()))
            .map_err(|_| AmountError::TooLarge)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A currency by its code: three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Reads a code. `None` when it is not three letters from A to Z.
    pub fn parse(code: &str) -> Option<Self> {
        let code: [u8; 3] = code.as_bytes().try_into().ok()?;
        code.iter()
            .all(u8::is_ascii_uppercase)
            .then_some(Self(code))
    }

    /// The code.
    #[expect(
        clippy::missing_panics_doc,
        reason = "reading a code lets only ASCII letters through"
    )]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("a currency holds three ASCII letters")
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        let sum = Amount::parse("0.1").expect("an amount").get()
            + Amount::parse("0.2").expect("an amount").get();
        assert_eq!(sum, Amount::parse("0.3").expect("an amount").get());
        let largest = Amount::parse("999999999999999999.999999999").expect("an amount");
        assert_eq!(largest.to_string(), "999999999999999999.999999999");
        assert_eq!(largest.billionths(), 10_u128.pow(27) - 1);
        assert_eq!(
            Amount::parse("12.5000000000000")
                .expect("an amount")
                .to_string(),
            "12.5"
        );
        assert_eq!(
            Amount::parse("1e3").expect("an amount").billionths(),
            10_u128.pow(12)
        );
        assert_eq!(Amount::parse("-0").expect("zero"), Amount::default());
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        assert_eq!(Amount::parse("-0.01"), Err(AmountError::Negative));
        assert_eq!(
            Amount::parse("1000000000000000000"),
            Err(AmountError::TooLarge)
        );
        assert_eq!(Amount::parse("1e18"), Err(AmountError::TooLarge));
        assert_eq!(Amount::parse("1e400"), Err(AmountError::TooLarge));
        assert_eq!(Amount::parse("0.0000000001"), Err(AmountError::TooFine));
        assert_eq!(Amount::parse("1e-400"), Err(AmountError::TooFine));
        for text in ["", "twelve", "1,50", "NaN", "inf", "0x1"] {
            assert_eq!(Amount::parse(text), Err(AmountError::NotANumber), "{text}");
        }
    }

    #[test]
    fn a_currency_is_three_capital_letters() {
        assert_eq!(
            Currency::parse("EUR").map(|c| c.to_string()),
            Some("EUR".to_owned())
        );
        for code in ["", "eur", "EURO", "E1R", "€"] {
            assert_eq!(Currency::parse(code), None, "{code}");
        }
    }
}
