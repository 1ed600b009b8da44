//! Whole numbers of any size: just enough to multiply and divide without ever overflowing.
//!
//! An amount has up to 27 digits, a rate, a unit and each factor up to 18. Their products do not
//! fit into 128 bits, and a decimal type would round them, possibly upwards.

use crate::Points;

/// A whole number, least significant limb first, without leading zero limbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Natural(Vec<u64>);

impl Natural {
    fn trimmed(mut limbs: Vec<u64>) -> Self {
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
        Self(limbs)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the halves of a 128-bit product are taken apart"
    )]
    pub(super) fn times(&self, factor: u64) -> Self {
        let mut carry = 0_u64;
        let mut limbs: Vec<u64> = Vec::with_capacity(self.0.len() + 1);
        for limb in &self.0 {
            let product = u128::from(*limb) * u128::from(factor) + u128::from(carry);
            limbs.push(product as u64);
            carry = (product >> 64) as u64;
        }
        limbs.push(carry);
        Self::trimmed(limbs)
    }

    /// The quotient, rounded down. The divisor is at least 1.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the remainder is smaller than the divisor, so each quotient fits"
    )]
    pub(super) fn divided_by(&self, divisor: u64) -> Self {
        let divisor = u128::from(divisor.max(1));
        let mut remainder = 0_u128;
        let mut limbs = self.0.clone();
        for limb in limbs.iter_mut().rev() {
            let dividend = (remainder << 64) | u128::from(*limb);
            *limb = (dividend / divisor) as u64;
            remainder = dividend % divisor;
        }
        Self::trimmed(limbs)
    }

    /// `None` when it is more than an account can hold.
    pub(super) fn to_points(&self) -> Option<Points> {
        let number = match self.0.as_slice() {
            [] => 0,
            [limb] => i64::try_from(*limb).ok()?,
            _ => return None,
        };
        Points::new(number).ok()
    }
}

impl From<u128> for Natural {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the number is taken apart into its halves"
    )]
    fn from(number: u128) -> Self {
        Self::trimmed(vec![number as u64, (number >> 64) as u64])
    }
}

impl From<Points> for Natural {
    fn from(points: Points) -> Self {
        Self::trimmed(vec![points.get().unsigned_abs()])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn agrees_with_machine_numbers(a: u64, b: u64, c in 1..=u64::MAX) {
            let product = u128::from(a) * u128::from(b);
            prop_assert_eq!(Natural::from(u128::from(a)).times(b), Natural::from(product));
            prop_assert_eq!(Natural::from(product).divided_by(c), Natural::from(product / u128::from(c)));
        }

        #[test]
        fn division_undoes_multiplication(a: u128, factors in prop::collection::vec(1..=u64::MAX, 0..6)) {
            let product = factors.iter().fold(Natural::from(a), |product, factor| product.times(*factor));
            let quotient = factors.iter().fold(product, |quotient, factor| quotient.divided_by(*factor));
            prop_assert_eq!(quotient, Natural::from(a));
        }
    }

    #[test]
    fn only_what_an_account_holds_is_points() {
        let largest = Natural::from(Points::MAX);
        assert_eq!(largest.to_points(), Some(Points::MAX));
        assert_eq!(largest.times(2).to_points(), None);
        assert_eq!(Natural::from(u128::MAX).to_points(), None);
        assert_eq!(largest.times(0).to_points(), Some(Points::ZERO));
    }
}
