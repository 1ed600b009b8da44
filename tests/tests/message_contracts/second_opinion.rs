//! The engine's own reading of the sample day against the plain recomputation, message by
//! message: the same refusals, the same duplicates, the same points.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Utc};
use domain::inbound::{self, Message};
use domain::{Command, Programme, Refusal, RefusalClass, Tier};
use samples::feed::{self, Delivery};
use samples::recompute::{Recomputation, Verdict};

/// The intake without its database: what was seen, and what the daily caps have used up.
struct Engine {
    programme: Programme,
    now: DateTime<Utc>,
    bodies: HashMap<(&'static str, String), [u8; 32]>,
    given_today: HashMap<(String, String, NaiveDate), domain::Points>,
}

impl Engine {
    fn take(&mut self, offset: usize, delivery: &Delivery) -> Result<Verdict, Refusal> {
        let headers: Vec<(String, Vec<u8>)> = delivery
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
            .collect();
        let message = Message {
            topic: &delivery.topic,
            partition: 0,
            offset: i64::try_from(offset).expect("a line number"),
            key: Some(delivery.key.as_bytes()),
            headers: &headers,
            value: Some(&delivery.value),
            timestamp: self.now,
        };
        let Some(command) = inbound::read(&message, self.now)? else {
            return Ok(Verdict::Ignored);
        };
        let (place, hash) = match &command {
            Command::Notify(notification) => (
                ("notification", notification.identity.clone()),
                notification.body_hash(),
            ),
            Command::Award(award) => (
                (award.source.as_str(), award.event_id.to_string()),
                award.body_hash(),
            ),
            Command::Redeem(request) => (
                ("redeem", request.redeem_request_id.to_string()),
                request.body_hash(),
            ),
        };
        match self.bodies.get(&place) {
            Some(first) if *first == hash => return Ok(Verdict::Duplicate),
            Some(_) => return Err(Refusal::new(RefusalClass::BodyConflict, "another body")),
            None => {}
        }
        let verdict = match command {
            Command::Notify(_) => Verdict::Ignored,
            Command::Redeem(_) => Verdict::Redemption,
            Command::Award(award) => {
                let mut points = 0;
                for given in self.programme.evaluate(&award, Tier::Bronze)?.contributions {
                    let key = (
                        award.customer_id.to_string(),
                        given.rule.clone(),
                        award.day(),
                    );
                    let today = self.given_today.entry(key).or_default();
                    let within = given.within_daily_cap(*today);
                    *today = today.saturating_add(within);
                    points += within.get();
                }
                Verdict::Awarded(points)
            }
        };
        self.bodies.insert(place, hash);
        Ok(verdict)
    }
}

#[test]
fn the_engine_reads_the_sample_day_as_the_recomputation_does() {
    let rules = crate::text(&crate::root().join("programme.toml"));
    let mut engine = Engine {
        programme: Programme::parse(&rules).expect("the default programme is valid"),
        now: "2026-03-15T00:00:00Z".parse().expect("an instant"),
        bodies: HashMap::new(),
        given_today: HashMap::new(),
    };
    let mut pass = Recomputation::default();
    let deliveries = feed::read(&feed::committed_sample()).expect("the sample can be read");
    for (line, delivery) in deliveries.iter().enumerate() {
        let taken = engine.take(line, delivery);
        let reason = taken.as_ref().err().map(ToString::to_string);
        let engine_says =
            taken.unwrap_or_else(|refusal| Verdict::DeadLetter(refusal.class.as_str()));
        let start = String::from_utf8_lossy(&delivery.value[..delivery.value.len().min(300)]);
        assert_eq!(
            engine_says,
            pass.take(delivery),
            "line {} on {}: {start} ({reason:?})",
            line + 1,
            delivery.topic
        );
    }
}
