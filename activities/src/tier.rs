//! The steps of a tier upgrade.

use std::{sync::Arc, time::Duration};

use domain::{CustomerId, Tier, TierThresholds, message::Recommendation, refusal::printable};
use store::{PgPool, tiers};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use workflows::{
    contract::{
        Acknowledgement, EvaluateTier, GatherContext, OrderHistory, RecordCompletion, TierAccount,
        TierContext, TierOrder, TierOutcome, UpgradeResult, UpgradeTier, Upgraded, definition,
    },
    id,
};

use crate::{activity_error, context::ContextServices, measures};

/// How many products a notification recommends.
const RECOMMENDATIONS: usize = 3;
/// The longest text of a recommended product that is passed on, in characters.
const PRODUCT_TEXT_MAX_CHARS: usize = 300;

/// Gives the thresholds in force.
pub type Thresholds = Arc<dyn Fn() -> TierThresholds + Send + Sync>;

/// What the steps work with.
#[derive(Clone)]
pub struct TierSteps {
    /// The primary database.
    pub pool: PgPool,
    /// The context services.
    pub services: ContextServices,
    /// The thresholds in force.
    pub thresholds: Thresholds,
}

#[expect(clippy::needless_pass_by_value, reason = "one form becomes the other")]
fn upgraded(upgrade: tiers::Upgrade) -> Upgraded {
    Upgraded {
        previous_tier: upgrade.previous_tier,
        new_tier: upgrade.new_tier,
        upgraded_at: upgrade.upgraded_at,
        acknowledge_until: upgrade.acknowledge_until,
    }
}

#[activities]
impl TierSteps {
    #[activity(definition = definition::ReadAccount)]
    pub async fn read_account(
        self: Arc<Self>,
        _ctx: ActivityContext,
        order: TierOrder,
    ) -> Result<TierAccount, ActivityError> {
        let account = tiers::read_account(&self.pool, order.order_id)
            .await
            .map_err(activity_error)?;
        Ok(TierAccount {
            current_points: account.current_points,
            tier: account.tier,
            tier_version: account.tier_version,
            already_upgraded: account.already_upgraded.map(upgraded),
        })
    }

    #[activity(definition = definition::EvaluateTier)]
    #[expect(clippy::unused_async, reason = "a thread of its own would cost more")]
    pub async fn evaluate_tier(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: EvaluateTier,
    ) -> Result<Option<Tier>, ActivityError> {
        Ok((self.thresholds)().due(input.current_points, input.tier))
    }

    #[activity(definition = definition::GatherContext)]
    pub async fn gather_context(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: GatherContext,
    ) -> Result<TierContext, ActivityError> {
        let (recommended, of_tier) = futures::join!(
            self.services.recommendations(&input.customer_id),
            self.services.products_of_tier(input.tier),
        );
        let last_attempt = ctx.info().attempt >= workflows::options::CONTEXT_ATTEMPTS;
        if !last_attempt {
            // Both are asked again; the last attempt goes on with what there is.
            if let Some(error) = recommended.as_ref().err().or(of_tier.as_ref().err()) {
                return Err(activity_error(error.clone()));
            }
        }
        let mut unreachable = Vec::new();
        let recommended = recommended.unwrap_or_else(|_| {
            unreachable.push("product".to_owned());
            Vec::new()
        });
        let of_tier = of_tier.unwrap_or_else(|_| {
            unreachable.push("product-search".to_owned());
            Vec::new()
        });
        Ok(TierContext {
            recommendations: pick(recommended, of_tier),
            unreachable,
        })
    }

    #[activity(definition = definition::FetchOrderHistory)]
    pub async fn fetch_order_history(
        self: Arc<Self>,
        _ctx: ActivityContext,
        customer: CustomerId,
    ) -> Result<OrderHistory, ActivityError> {
        let orders = self
            .services
            .order_count(&customer)
            .await
            .map_err(activity_error)?;
        Ok(OrderHistory { orders })
    }

    #[activity(definition = definition::UpgradeTier)]
    pub async fn upgrade_tier(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: UpgradeTier,
    ) -> Result<UpgradeResult, ActivityError> {
        let TierOrder {
            order_id,
            customer_id,
        } = &input.order;
        let upgrade = tiers::upgrade(
            &self.pool,
            &tiers::NewUpgrade {
                order_id: *order_id,
                customer: customer_id,
                workflow_id: &id::tier_upgrade(customer_id, *order_id),
                tier: input.tier,
                expected_tier_version: input.expected_tier_version,
                recommendations: &input.recommendations,
                acknowledge_within: Duration::from_millis(input.acknowledge_within_ms),
            },
        )
        .await
        .map_err(activity_error)?;
        Ok(upgrade.map_or(UpgradeResult::Conflict, |u| {
            UpgradeResult::Upgraded(upgraded(u))
        }))
    }

    #[activity(definition = definition::AwaitNotificationAck)]
    pub async fn await_notification_ack(
        self: Arc<Self>,
        _ctx: ActivityContext,
        order: TierOrder,
    ) -> Result<Acknowledgement, ActivityError> {
        let answer = tiers::acknowledgement(&self.pool, order.order_id)
            .await
            .map_err(activity_error)?;
        Ok(match answer {
            None => Acknowledgement::Waiting,
            Some(true) => Acknowledgement::Acknowledged,
            Some(false) => Acknowledgement::Failed,
        })
    }

    #[activity(definition = definition::RecordCompletion)]
    pub async fn record_completion(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: RecordCompletion,
    ) -> Result<(), ActivityError> {
        let closed_now = tiers::close(
            &self.pool,
            input.order.order_id,
            &input.order.customer_id,
            input.outcome.as_str(),
            input.outcome == TierOutcome::Acknowledged,
            &(self.thresholds)(),
        )
        .await
        .map_err(activity_error)?;
        if closed_now {
            measures::tier_upgrade_ended(input.outcome);
        }
        Ok(())
    }
}

/// What was recommended to the customer first, then what the tier offers, each product once.
fn pick(recommended: Vec<Recommendation>, of_tier: Vec<Recommendation>) -> Vec<Recommendation> {
    let mut picked: Vec<Recommendation> = Vec::with_capacity(RECOMMENDATIONS);
    for product in recommended.into_iter().chain(of_tier) {
        if picked.len() < RECOMMENDATIONS
            && picked
                .iter()
                .all(|other| other.product_id != product.product_id)
        {
            // It goes into a message, which has to find room on its topic whatever a service writes.
            let short = |text: &str| printable(text, PRODUCT_TEXT_MAX_CHARS);
            picked.push(Recommendation {
                product_id: short(&product.product_id),
                name: short(&product.name),
                price: short(&product.price),
            });
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(id: &str) -> Recommendation {
        Recommendation {
            product_id: id.into(),
            name: id.into(),
            price: "1.00".into(),
        }
    }

    #[test]
    fn picks_up_to_three_different_products() {
        let ids = |picked: Vec<Recommendation>| {
            picked.into_iter().map(|p| p.product_id).collect::<Vec<_>>()
        };
        assert_eq!(
            ids(pick(
                vec![product("a")],
                vec![product("a"), product("b"), product("c"), product("d")]
            )),
            ["a", "b", "c"]
        );
        assert!(pick(Vec::new(), Vec::new()).is_empty());
        let long = pick(vec![product(&"x".repeat(2_000_000))], Vec::new());
        assert_eq!(long[0].name.chars().count(), PRODUCT_TEXT_MAX_CHARS);
    }
}
