//! Points: whole, never negative, and checked.

use std::{fmt, iter::Sum};

use serde::{Deserialize, Serialize};

/// Why a number is not a number of points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PointsError {
    /// Points are never negative.
    #[error("points may not be negative")]
    Negative,
    /// The result does not fit into 63 bits.
    #[error("points overflow")]
    Overflow,
}

/// A number of points, zero or more. Its unit is one point.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "i64", into = "i64")]
pub struct Points(i64);

impl Points {
    /// No points.
    pub const ZERO: Self = Self(0);
    /// The most points that any account can hold.
    pub const MAX: Self = Self(i64::MAX);

    /// Reads a number of points.
    ///
    /// # Errors
    /// [`PointsError::Negative`] below zero.
    pub const fn new(points: i64) -> Result<Self, PointsError> {
        if points < 0 {
            Err(PointsError::Negative)
        } else {
            Ok(Self(points))
        }
    }

    /// The number, in points.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Whether there are none.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum.
    ///
    /// # Errors
    /// [`PointsError::Overflow`] when it does not fit.
    #[expect(
        clippy::should_implement_trait,
        reason = "an operator could not fail, and this can"
    )]
    pub fn add(self, other: Self) -> Result<Self, PointsError> {
        self.0
            .checked_add(other.0)
            .map(Self)
            .ok_or(PointsError::Overflow)
    }

    /// The difference.
    ///
    /// # Errors
    /// [`PointsError::Negative`] when there are fewer points than are taken.
    pub fn subtract(self, other: Self) -> Result<Self, PointsError> {
        if other.0 > self.0 {
            Err(PointsError::Negative)
        } else {
            Ok(Self(self.0 - other.0))
        }
    }

    /// The sum, held at [`Points::MAX`].
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, held at zero.
    #[must_use]
    pub fn saturating_subtract(self, other: Self) -> Self {
        Self((self.0 - other.0).max(0))
    }
}

impl TryFrom<i64> for Points {
    type Error = PointsError;
    fn try_from(points: i64) -> Result<Self, PointsError> {
        Self::new(points)
    }
}

impl From<Points> for i64 {
    fn from(points: Points) -> i64 {
        points.0
    }
}

impl Sum for Points {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
