//! The named crash points: where the services can be made to die, and how late at most.

/// A place in a service's code at which it can be made to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Its name, as the service knows it.
    pub name: &'static str,
    /// The service that passes it.
    pub service: &'static str,
    /// It is made to die at this passing at the latest: small for points that are passed rarely.
    pub at_most: u64,
}

const fn worker(name: &'static str, at_most: u64) -> Point {
    Point {
        name,
        service: "worker",
        at_most,
    }
}

const fn api(name: &'static str, at_most: u64) -> Point {
    Point {
        name,
        service: "api",
        at_most,
    }
}

/// All of them.
pub const POINTS: &[Point] = &[
    worker("award.before-commit", 10),
    worker("award.after-commit", 10),
    worker("intake.before-commit", 4),
    worker("intake.after-commit", 4),
    worker("offset.before-commit", 6),
    worker("offset.after-commit", 6),
    worker("relay.before-publish", 10),
    worker("relay.after-publish", 10),
    worker("relay.after-mark", 10),
    worker("tier.before-commit", 4),
    worker("tier.after-commit", 4),
    worker("starter.before-start", 4),
    worker("starter.after-start", 4),
    api("accept.before-commit", 8),
    api("accept.after-commit", 8),
    api("reserve.before-commit", 10),
    api("reserve.after-commit", 10),
    api("confirming.before-commit", 10),
    api("confirming.after-commit", 10),
    api("partner.before-call", 10),
    api("partner.after-call", 10),
    api("void.before-call", 2),
    api("void.after-call", 2),
    api("verdict.before-commit", 6),
    api("verdict.after-commit", 6),
    api("settle.before-commit", 5),
    api("settle.after-commit", 5),
    api("release.before-commit", 3),
    api("release.after-commit", 3),
    api("callback.before-commit", 3),
    api("callback.after-commit", 3),
    api("callback.after-signal", 3),
    api("reply.before-commit", 2),
    api("reply.after-commit", 2),
];

/// The point of this name.
pub fn named(name: &str) -> Option<Point> {
    POINTS.iter().copied().find(|point| point.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_point_has_one_name_and_can_be_reached() {
        let names: BTreeSet<&str> = POINTS.iter().map(|point| point.name).collect();
        assert_eq!(names.len(), POINTS.len());
        assert!(POINTS.iter().all(|point| (1..=30).contains(&point.at_most)));
        assert_eq!(named("void.after-call").map(|p| p.service), Some("api"));
        assert_eq!(named("nowhere"), None);
    }
}
