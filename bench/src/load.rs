//! Load: so many at once, one after the other, or as many a second whether or not the earlier ones
//! have ended.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use hdrhistogram::Histogram;
use tokio::runtime::Handle;

/// How long things took.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Of all these.
    ///
    /// # Errors
    /// Never: any time can be kept.
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Result<Self> {
        let mut microseconds = Histogram::new(3)?;
        for time in times {
            microseconds.record(u64::try_from(time.as_micros())?)?;
        }
        Ok(Self(microseconds))
    }

    /// The time within which this part of them ended, in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "times of a measurement")]
    pub fn quantile(&self, part: f64) -> f64 {
        self.0.value_at_quantile(part) as f64 / 1_000.0
    }

    /// The time within which half of them ended, in milliseconds.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The time within which 99 of 100 ended, in milliseconds.
    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    /// The longest of them, in milliseconds.
    pub fn longest(&self) -> f64 {
        self.quantile(1.0)
    }
}

/// Does so much, so many at once: the next begins when one has ended.
///
/// # Errors
/// What the first of them that failed says.
pub async fn at_once<T, F>(at_once: usize, count: usize, one: impl Fn(usize) -> F) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let all = stream::iter((0..count).map(|number| {
        let one = one(number);
        async { tokio::spawn(one).await? }
    }));
    all.buffer_unordered(at_once).try_collect().await
}

/// Begins so many a second at even distances, however long they take. What each came to, and how
/// long after the moment at which it was due, so that it counts when this process is late.
///
/// # Errors
/// When one of them panicked.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "amounts of a measurement are small and positive"
)]
pub async fn a_second<T, F>(
    rate: f64,
    lasting: Duration,
    one: impl Fn(usize) -> F + Send + 'static,
) -> Result<Vec<(Duration, T)>>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let count = ((rate * lasting.as_secs_f64()) as usize).max(1);
    let runtime = Handle::current();
    // On a thread of its own: timers of the runtime are exact to a millisecond only.
    let begun = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let start_one = |number: usize| {
            let due = began + Duration::from_secs_f64(number as f64 / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let one = one(number);
            runtime.spawn(async move {
                let came_to = one.await;
                (due.elapsed(), came_to)
            })
        };
        (0..count).map(start_one).collect::<Vec<_>>()
    });
    let mut ended = Vec::with_capacity(count);
    for one in begun.await? {
        ended.push(one.await?);
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Barrier;

    use super::*;

    #[test]
    fn quantiles_are_in_milliseconds() -> Result<()> {
        let latencies = Latencies::of((1..=100).map(Duration::from_millis))?;
        assert!((latencies.median() - 50.0).abs() < 0.1);
        assert!((latencies.p99() - 99.0).abs() < 0.1);
        assert!((latencies.longest() - 100.0).abs() < 0.1);
        Ok(())
    }

    #[tokio::test]
    async fn what_is_due_begins_while_the_earlier_ones_are_under_way() -> Result<()> {
        let all_have_begun = Arc::new(Barrier::new(10));
        let ended = a_second(1_000.0, Duration::from_millis(10), move |number| {
            let all_have_begun = Arc::clone(&all_have_begun);
            async move {
                all_have_begun.wait().await;
                number
            }
        });
        let numbers: Vec<usize> = ended.await?.into_iter().map(|(_, number)| number).collect();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>());
        Ok(())
    }
}
