//! Finding the one message that the database refuses, so that the rest of its batch posts.

use std::ops::Range;

/// Which part of a batch to post next. A part that is refused is halved; a part of one that is
/// refused is the offender. Parts come in order.
#[derive(Debug)]
pub struct Bisection {
    /// What is left to post, the next part last.
    parts: Vec<Range<usize>>,
}

impl Bisection {
    /// All of a batch at once.
    pub fn new(messages: usize) -> Self {
        Self {
            parts: std::iter::once(0..messages)
                .filter(|part| !part.is_empty())
                .collect(),
        }
    }

    /// The part to post next.
    pub fn next_part(&self) -> Option<Range<usize>> {
        self.parts.last().cloned()
    }

    /// It was posted.
    pub fn posted(&mut self) {
        self.parts.pop();
    }

    /// It was refused: the offender, if it was a single message.
    pub fn refused(&mut self) -> Option<usize> {
        let part = self.parts.pop()?;
        if part.len() == 1 {
            return Some(part.start);
        }
        let middle = part.start + part.len() / 2;
        self.parts.push(middle..part.end);
        self.parts.push(part.start..middle);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Posts a batch of which some are refused: what was posted, in order, the offenders, and
    /// how many attempts it took.
    fn post(messages: usize, offenders: &[usize]) -> (Vec<usize>, Vec<usize>, usize) {
        let mut plan = Bisection::new(messages);
        let (mut posted, mut found, mut attempts) = (Vec::new(), Vec::new(), 0);
        while let Some(part) = plan.next_part() {
            attempts += 1;
            if part.clone().any(|i| offenders.contains(&i)) {
                found.extend(plan.refused());
            } else {
                posted.extend(part);
                plan.posted();
            }
        }
        (posted, found, attempts)
    }

    #[test]
    fn a_good_batch_is_posted_at_once() {
        assert_eq!(post(500, &[]), ((0..500).collect(), vec![], 1));
        assert_eq!(post(0, &[]), (vec![], vec![], 0));
    }

    #[test]
    fn every_offender_is_found_and_the_rest_is_posted_in_order() {
        for offenders in [
            vec![0],
            vec![6],
            vec![3],
            vec![0, 6],
            vec![2, 3, 4],
            (0..7).collect(),
        ] {
            let (posted, found, _) = post(7, &offenders);
            assert_eq!(found, offenders);
            let good: Vec<usize> = (0..7).filter(|i| !offenders.contains(i)).collect();
            assert_eq!(posted, good, "{offenders:?}");
        }
    }

    #[test]
    fn finding_one_takes_about_twice_the_logarithm() {
        let (_, found, attempts) = post(512, &[317]);
        assert_eq!(found, [317]);
        assert!(attempts <= 19, "{attempts} attempts");
    }
}
