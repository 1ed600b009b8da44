//! Who the day is about: a few customers who come all the time and many who hardly do.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// The customers, most frequent first.
pub(super) struct Customers {
    ids: Vec<String>,
    /// Running sums of the weights, in step with `ids`.
    cumulative: Vec<f64>,
}

impl Customers {
    /// Names them and gives each a weight by Zipf's law with a flattened head.
    pub(super) fn draw(rng: &mut ChaCha8Rng, count: u32) -> Self {
        let mut ids = Vec::new();
        let mut cumulative = Vec::new();
        let mut sum = 0.0;
        for rank in 0..count {
            // A player's number is a customer id like any other; the rest are opaque texts.
            ids.push(match rank {
                700 => "kund-åäö-700".to_owned(),
                701 => "お客様-701".to_owned(),
                _ if rank % 2 == 0 => (100_000 + rank * 7 + rng.random_range(0..7)).to_string(),
                _ => format!("C-{:04}-{:03}", rng.random_range(0..10_000), rank),
            });
            sum += 1.0 / f64::from(rank + 12).powf(1.1);
            cumulative.push(sum);
        }
        Self { ids, cumulative }
    }

    /// Draws one by weight.
    pub(super) fn pick(&self, rng: &mut ChaCha8Rng) -> &str {
        let total = self.cumulative[self.cumulative.len() - 1];
        let point = rng.random_range(0.0..total);
        let index = self.cumulative.partition_point(|sum| *sum <= point);
        &self.ids[index.min(self.ids.len() - 1)]
    }

    /// All of them.
    pub(super) fn ids(&self) -> &[String] {
        &self.ids
    }
}
