//! The one form in which Meed knows what it is asked to do, whatever message said it.

use std::{collections::BTreeMap, fmt};

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    CustomerId, EventId, MerchantId, NotificationKind, OrderId, Points, RedeemRequestId,
    digest::Digest,
    money::{Amount, Currency},
    number::Number,
};

/// What kind of command an id belongs to. Not the road it came by: the same event over Kafka and
/// over HTTP counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// A partner's event: a stay, a meal, casino spend.
    RewardEvent,
    /// An order.
    Order,
    /// An order without an id, known by its place in its topic. A kind of its own, so that no
    /// order's id can be another one's place.
    OrderAt,
    /// An order that was completed, in either version.
    OrderCompleted,
    /// A new user.
    UserCreated,
    /// A registered player.
    PlayerRegistered,
    /// A redemption.
    Redeem,
}

impl SourceKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::RewardEvent,
        Self::Order,
        Self::OrderAt,
        Self::OrderCompleted,
        Self::UserCreated,
        Self::PlayerRegistered,
        Self::Redeem,
    ];

    /// The kind's name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RewardEvent => "reward-event",
            Self::Order => "order",
            Self::OrderAt => "order-at",
            Self::OrderCompleted => "order-completed",
            Self::UserCreated => "user-created",
            Self::PlayerRegistered => "player-registered",
            Self::Redeem => "redeem",
        }
    }

    /// Reads a kind's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happened, as rules name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventType {
    /// Nights in a hotel.
    HotelStay,
    /// A meal.
    Dining,
    /// Money spent in a casino.
    CasinoSpend,
    /// An order.
    Order,
    /// An order that was completed.
    OrderCompleted,
    /// A new user.
    UserCreated,
    /// A registered player.
    PlayerRegistered,
}

impl EventType {
    /// All event types.
    pub const ALL: [Self; 7] = [
        Self::HotelStay,
        Self::Dining,
        Self::CasinoSpend,
        Self::Order,
        Self::OrderCompleted,
        Self::UserCreated,
        Self::PlayerRegistered,
    ];

    /// The type's name in messages and rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HotelStay => "HOTEL_STAY",
            Self::Dining => "DINING",
            Self::CasinoSpend => "CASINO_SPEND",
            Self::Order => "ORDER",
            Self::OrderCompleted => "ORDER_COMPLETED",
            Self::UserCreated => "USER_CREATED",
            Self::PlayerRegistered => "PLAYER_REGISTERED",
        }
    }

    /// Reads a type's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether such an event may carry an amount of money.
    pub const fn has_amount(self) -> bool {
        matches!(
            self,
            Self::HotelStay | Self::Dining | Self::CasinoSpend | Self::Order
        )
    }

    /// Whether such an event carries a number of nights.
    pub const fn has_nights(self) -> bool {
        matches!(self, Self::HotelStay)
    }

    /// Whether such an event comes from a partner, with a payload that may hold any field.
    pub const fn has_payload(self) -> bool {
        matches!(self, Self::HotelStay | Self::Dining | Self::CasinoSpend)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One value that a rule may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A text.
    Text(String),
    /// A number, exact.
    Number(Number),
    /// A yes or no.
    Flag(bool),
}

/// What is known of an event beyond who and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The amount spent.
    pub amount: Option<Amount>,
    /// Its currency; without one it is in the programme's default currency.
    pub currency: Option<Currency>,
    /// The number of nights stayed.
    pub nights: Option<u32>,
    /// The other fields of the payload that hold a text, a number or a flag.
    pub fields: BTreeMap<String, Fact>,
    /// Over everything else the payload says, lists and objects included.
    pub(crate) rest: [u8; 32],
}

/// An event that may give points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Award {
    /// The kind of command; together with the id it is what counts once.
    pub source: SourceKind,
    /// The event's id.
    pub event_id: EventId,
    /// Whose points.
    pub customer_id: CustomerId,
    /// What happened.
    pub event_type: EventType,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// The rest.
    pub facts: Facts,
}

impl Award {
    /// The UTC day of the event, on which daily caps count.
    pub fn day(&self) -> NaiveDate {
        self.occurred_at.date_naive()
    }

    /// A hash of what the command says: equal for two messages that say the same thing in other
    /// words (order of fields, `1.0` for `1`, an envelope's id and time), and different otherwise.
    pub fn body_hash(&self) -> [u8; 32] {
        let mut digest = Digest::new("award");
        digest.text(self.source.as_str());
        digest.text(self.event_id.as_str());
        digest.text(self.customer_id.as_str());
        digest.text(self.event_type.as_str());
        // Only a partner's event states its own time; elsewhere it is that of the envelope.
        if self.source == SourceKind::RewardEvent {
            digest.integer(self.occurred_at.timestamp());
            digest.integer(self.occurred_at.timestamp_subsec_nanos().into());
        }
        let amount = self.facts.amount.map(|amount| amount.to_string());
        digest.optional_text(amount.as_deref());
        digest.optional_text(self.facts.currency.as_ref().map(Currency::as_str));
        digest.optional_text(
            self.facts
                .nights
                .map(|nights| nights.to_string())
                .as_deref(),
        );
        digest.hash(&self.facts.rest);
        digest.finish()
    }
}

/// A wish to redeem points at a merchant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedeemRequest {
    /// The redemption's id.
    pub redeem_request_id: RedeemRequestId,
    /// Whose points.
    pub customer_id: CustomerId,
    /// How many points, at least one.
    pub points: Points,
    /// At which merchant.
    pub merchant_id: MerchantId,
    /// For which order at the merchant.
    pub order_id: OrderId,
    /// When it was asked for.
    pub requested_at: DateTime<Utc>,
}

impl RedeemRequest {
    /// A hash of what is asked for. The time is no part of it, so that the same request over HTTP
    /// and over Kafka counts once.
    pub fn body_hash(&self) -> [u8; 32] {
        let mut digest = Digest::new("redeem");
        digest.text(self.redeem_request_id.as_str());
        digest.text(self.customer_id.as_str());
        digest.integer(self.points.get());
        digest.text(self.merchant_id.as_str());
        digest.text(self.order_id.as_str());
        digest.finish()
    }
}

/// Something to tell a player. It gives no points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// What it is known by, among all notifications: its sender's `ce_source` and `ce_id` with a
    /// space between them; or the place where it first stood, which has no space.
    pub identity: String,
    /// Whom to tell.
    pub user_id: CustomerId,
    /// What it is about.
    pub kind: NotificationKind,
    /// What to tell: a JSON object, as its sender wrote it.
    pub content: String,
    /// Over the content as it was read.
    pub(crate) content_hash: [u8; 32],
}

impl Notification {
    /// A hash of what it says: equal for two messages that say the same thing in other words.
    pub fn body_hash(&self) -> [u8; 32] {
        let mut digest = Digest::new("notification");
        digest.text(&self.identity);
        digest.text(self.user_id.as_str());
        digest.text(self.kind.as_str());
        digest.hash(&self.content_hash);
        digest.finish()
    }
}

/// Something Meed is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Award points for an event.
    Award(Award),
    /// Redeem points.
    Redeem(RedeemRequest),
    /// Tell a player something.
    Notify(Notification),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RedeemRequest {
        RedeemRequest {
            redeem_request_id: RedeemRequestId::new("r-1").expect("an id"),
            customer_id: CustomerId::new("c-1").expect("an id"),
            points: Points::new(100).expect("positive"),
            merchant_id: MerchantId::new("M1").expect("an id"),
            order_id: OrderId::new("o-1").expect("an id"),
            requested_at: DateTime::UNIX_EPOCH,
        }
    }

    fn award(source: SourceKind) -> Award {
        Award {
            source,
            event_id: EventId::new("e-1").expect("an id"),
            customer_id: CustomerId::new("c-1").expect("an id"),
            event_type: EventType::Dining,
            occurred_at: DateTime::UNIX_EPOCH,
            facts: Facts {
                amount: Amount::parse("12.50").ok(),
                ..Facts::default()
            },
        }
    }

    fn notification() -> Notification {
        Notification {
            identity: "/shop n-1".to_owned(),
            user_id: CustomerId::new("c-1").expect("an id"),
            kind: NotificationKind::new("PROMOTION").expect("a kind"),
            content: "{}".to_owned(),
            content_hash: [0; 32],
        }
    }

    #[test]
    fn names_are_read_back() {
        for kind in SourceKind::ALL {
            assert_eq!(SourceKind::parse(kind.as_str()), Some(kind));
        }
        for kind in EventType::ALL {
            assert_eq!(EventType::parse(kind.as_str()), Some(kind));
        }
    }

    /// The hashes are in databases: when this fails, events already seen would be taken for others.
    #[test]
    fn hashes_stay_what_they_are() {
        let hex = |hash: [u8; 32]| hash.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(
            hex(request().body_hash()),
            "dae4cc46a71482d4816e23984b7a64d7f1414aad69177f3f0bd2ef3571268a25"
        );
        assert_eq!(
            hex(award(SourceKind::RewardEvent).body_hash()),
            "c78f7a17232c27524a9e4908013b11371e3f416878eda47dc3bf6b7ea0c478b4"
        );
        assert_eq!(
            hex(notification().body_hash()),
            "0457becf53a805dfddcb43097514374614d65487dc58b9d48479381344153102"
        );
    }

    #[test]
    fn every_part_of_a_body_counts() {
        let first = request();
        let id = |text: &str| CustomerId::new(text).expect("an id");
        let others = [
            RedeemRequest {
                redeem_request_id: RedeemRequestId::new("r-2").expect("an id"),
                ..first.clone()
            },
            RedeemRequest {
                customer_id: id("c-2"),
                ..first.clone()
            },
            RedeemRequest {
                points: Points::new(101).expect("positive"),
                ..first.clone()
            },
            RedeemRequest {
                merchant_id: MerchantId::new("M2").expect("an id"),
                ..first.clone()
            },
            RedeemRequest {
                order_id: OrderId::new("o-2").expect("an id"),
                ..first.clone()
            },
        ];
        for other in others {
            assert_ne!(other.body_hash(), first.body_hash(), "{other:?}");
        }
        let later = RedeemRequest {
            requested_at: Utc::now(),
            ..first.clone()
        };
        assert_eq!(later.body_hash(), first.body_hash());

        let first = award(SourceKind::RewardEvent);
        let later = DateTime::UNIX_EPOCH + chrono::TimeDelta::nanoseconds(1);
        let facts = |change: fn(&mut Facts)| {
            let mut facts = first.facts.clone();
            change(&mut facts);
            Award {
                facts,
                ..first.clone()
            }
        };
        let others = [
            Award {
                customer_id: id("c-2"),
                ..first.clone()
            },
            Award {
                event_type: EventType::CasinoSpend,
                ..first.clone()
            },
            Award {
                occurred_at: later,
                ..first.clone()
            },
            facts(|facts| facts.amount = None),
            facts(|facts| facts.currency = Currency::parse("USD")),
            facts(|facts| facts.nights = Some(1)),
            facts(|facts| facts.rest = [1; 32]),
        ];
        for other in others {
            assert_ne!(other.body_hash(), first.body_hash(), "{other:?}");
        }

        let first = notification();
        let others = [
            Notification {
                identity: "/shop n-2".to_owned(),
                ..first.clone()
            },
            Notification {
                user_id: id("c-2"),
                ..first.clone()
            },
            Notification {
                kind: NotificationKind::new("OFFER").expect("a kind"),
                ..first.clone()
            },
            Notification {
                content_hash: [1; 32],
                ..first.clone()
            },
        ];
        for other in others {
            assert_ne!(other.body_hash(), first.body_hash(), "{other:?}");
        }
    }

    #[test]
    fn the_time_of_an_envelope_is_no_part_of_the_body() {
        let first = award(SourceKind::Order);
        let later = Award {
            occurred_at: Utc::now(),
            ..first.clone()
        };
        assert_eq!(later.body_hash(), first.body_hash());
    }
}
