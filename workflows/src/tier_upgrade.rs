//! TierUpgrade: a customer has passed a threshold; give the tier, tell the customer, once.
//!
//! Input: the order to look and how long the acknowledgement may take. Outcome: what came of it.
//! A missing acknowledgement never undoes the tier and an unreachable context service never
//! blocks it. Closing the order looks again, so nothing that happened meanwhile is missed.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::Tier;
use serde::{Deserialize, Serialize};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{
    SyncWorkflowContext, TimerOptions, WorkflowCancellationToken, WorkflowContext,
    WorkflowContextView, WorkflowResult, join, select,
};

use crate::{
    contract::{
        Acknowledgement, EvaluateTier, GatherContext, RecordCompletion, TierAccount,
        TierActivities, TierContext, TierOrder, TierOutcome, UpgradeResult, UpgradeTier, Upgraded,
    },
    options,
    step::step,
    visibility::{STATUS, TIER},
};

/// The patch with which a run that goes on for another reads the row before it waits.
const READS_FIRST: &str = "reads-acknowledgement-first";

/// Which order, and how long the acknowledgement may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierUpgradeInput {
    /// The order.
    pub order: TierOrder,
    /// How long the acknowledgement may take, in milliseconds.
    pub acknowledge_within_ms: u64,
}

/// What came of a tier upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierUpgradeResult {
    /// How it ended.
    pub outcome: TierOutcome,
    /// The tier that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgraded: Option<Upgraded>,
    /// Context services that the upgrade went without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

/// One look at a customer's tier.
#[workflow]
pub struct TierUpgrade {
    input: TierUpgradeInput,
    called_back: bool,
    without: Vec<String>,
}

#[workflow_methods]
impl TierUpgrade {
    #[init]
    fn new(_ctx: &WorkflowContextView, input: TierUpgradeInput) -> Self {
        Self {
            input,
            called_back: false,
            without: Vec::new(),
        }
    }

    /// Reads, evaluates, gathers, upgrades, waits for the acknowledgement, records.
    #[run(name = "TierUpgrade")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<TierUpgradeResult> {
        let account = Self::read_account(ctx).await?;
        let resumed = account.already_upgraded.is_some();
        let upgraded = if let Some(upgraded) = account.already_upgraded.clone() {
            upgraded
        } else {
            let Some(tier) = Self::evaluate_tier(ctx, &account).await? else {
                return Self::end(ctx, TierOutcome::NotDue, None).await;
            };
            let context = Self::gather(ctx, tier).await;
            match Self::upgrade_tier(ctx, &account, tier, context).await? {
                UpgradeResult::Upgraded(upgraded) => upgraded,
                UpgradeResult::Conflict => {
                    return Self::end(ctx, TierOutcome::Conflict, None).await;
                }
            }
        };
        let outcome = match Self::await_acknowledgement(ctx, &upgraded, resumed).await? {
            Acknowledgement::Acknowledged => TierOutcome::Acknowledged,
            Acknowledgement::Failed => TierOutcome::NotificationFailed,
            Acknowledgement::Waiting | Acknowledgement::TimedOut => TierOutcome::NotAcknowledged,
        };
        Self::end(ctx, outcome, Some(upgraded)).await
    }

    /// The acknowledgement has been stored; the row says what it is.
    #[signal(name = "notification-acknowledged")]
    pub fn notification_acknowledged(&mut self, _ctx: &mut SyncWorkflowContext<Self>, _input: ()) {
        self.called_back = true;
    }

    async fn read_account(ctx: &WorkflowContext<Self>) -> WorkflowResult<TierAccount> {
        let order = ctx.state(|s| s.input.order.clone());
        let summary = "Reads points and tier".to_owned();
        let budget = options::LOCAL_STEP_BUDGET;
        Ok(step(ctx, || TierActivities::read_account, order, summary, budget).await?)
    }

    async fn evaluate_tier(
        ctx: &WorkflowContext<Self>,
        account: &TierAccount,
    ) -> WorkflowResult<Option<Tier>> {
        let input = EvaluateTier {
            current_points: account.current_points,
            tier: account.tier,
        };
        let summary = format!("{} points, now {}", account.current_points, account.tier);
        let budget = options::LOCAL_STEP_BUDGET;
        Ok(step(
            ctx,
            || TierActivities::evaluate_tier,
            input,
            summary,
            budget,
        )
        .await?)
    }

    /// Asks the product services and the order service at the same time; goes on without those
    /// that do not answer, and says which they were.
    async fn gather(ctx: &WorkflowContext<Self>, tier: Tier) -> TierContext {
        let customer_id = ctx.state(|s| s.input.order.customer_id.clone());
        ctx.set_current_details(format!("Due {tier}: gathering what to recommend"));
        let products = ctx.execute_activity(
            TierActivities::gather_context,
            GatherContext {
                customer_id: customer_id.clone(),
                tier,
            },
            options::context("Asks for recommendations and products of the tier".to_owned()),
        );
        let orders = ctx.execute_activity(
            TierActivities::fetch_order_history,
            customer_id,
            options::context("Asks for the customer's orders".to_owned()),
        );
        let (products, orders) = join!(products, orders);
        let context = products.unwrap_or_else(|_| TierContext {
            recommendations: Vec::new(),
            unreachable: vec!["product".to_owned(), "product-search".to_owned()],
        });
        let mut without = context.unreachable.clone();
        if orders.is_err() {
            without.push("order".to_owned());
        }
        ctx.state_mut(|s| s.without = without);
        context
    }

    async fn upgrade_tier(
        ctx: &WorkflowContext<Self>,
        account: &TierAccount,
        tier: Tier,
        context: TierContext,
    ) -> WorkflowResult<UpgradeResult> {
        let input = ctx.state(|s| s.input.clone());
        let upgrade = UpgradeTier {
            order: input.order,
            tier,
            expected_tier_version: account.tier_version,
            recommendations: context.recommendations,
            acknowledge_within_ms: input.acknowledge_within_ms,
        };
        let summary = format!("From {} to {tier}", account.tier);
        let budget = options::LOCAL_STEP_BUDGET;
        let result = step(
            ctx,
            || TierActivities::upgrade_tier,
            upgrade,
            summary,
            budget,
        )
        .await?;
        if let UpgradeResult::Upgraded(upgraded) = &result {
            ctx.set_current_details(format!(
                "{} given; waiting for the notification to be acknowledged",
                upgraded.new_tier
            ));
            ctx.upsert_search_attributes([
                TIER.value_set(upgraded.new_tier.to_string()),
                STATUS.value_set("AWAITING_ACKNOWLEDGEMENT".to_owned()),
            ]);
        }
        Ok(result)
    }

    /// Waits for the callback, and reads the row before giving up. A run that goes on for one that
    /// was cut off reads it first: the signal may have come when nobody was there.
    async fn await_acknowledgement(
        ctx: &WorkflowContext<Self>,
        upgraded: &Upgraded,
        resumed: bool,
    ) -> WorkflowResult<Acknowledgement> {
        if resumed && ctx.patched(READS_FIRST) {
            let acknowledgement = Self::read_acknowledgement(ctx).await?;
            if acknowledgement != Acknowledgement::Waiting {
                return Ok(acknowledgement);
            }
        }
        let token = WorkflowCancellationToken::new();
        let mut timer = ctx.timer(
            TimerOptions::builder(Self::remaining(ctx, upgraded.acknowledge_until))
                .summary("await-notification-ack".to_owned())
                .cancellation_token(token.clone())
                .build(),
        );
        let mut in_time = true;
        while in_time {
            {
                let mut woken = ctx.wait_condition(|s| s.called_back);
                select! {
                    // Cancelled from the Web UI: the tier stays, only the waiting ends.
                    woken = woken => match woken {
                        Ok(()) => ctx.state_mut(|s| s.called_back = false),
                        Err(_) => in_time = false,
                    },
                    _ = timer => in_time = false,
                }
            }
            let acknowledgement = Self::read_acknowledgement(ctx).await?;
            if acknowledgement != Acknowledgement::Waiting {
                token.cancel();
                return Ok(acknowledgement);
            }
        }
        token.cancel();
        Ok(Acknowledgement::TimedOut)
    }

    async fn read_acknowledgement(ctx: &WorkflowContext<Self>) -> WorkflowResult<Acknowledgement> {
        let order = ctx.state(|s| s.input.order.clone());
        let summary = "Reads whether the customer was told".to_owned();
        let budget = options::LOCAL_STEP_BUDGET;
        Ok(step(
            ctx,
            || TierActivities::await_notification_ack,
            order,
            summary,
            budget,
        )
        .await?)
    }

    /// Closes the order and tells operators how it ended.
    async fn end(
        ctx: &WorkflowContext<Self>,
        outcome: TierOutcome,
        upgraded: Option<Upgraded>,
    ) -> WorkflowResult<TierUpgradeResult> {
        let order = ctx.state(|s| s.input.order.clone());
        let completion = RecordCompletion { order, outcome };
        let summary = format!("Closes the order: {}", outcome.as_str());
        let budget = options::LOCAL_STEP_BUDGET;
        step(
            ctx,
            || TierActivities::record_completion,
            completion,
            summary,
            budget,
        )
        .await?;
        let without = ctx.state(|s| s.without.clone());
        let mut details = match &upgraded {
            Some(u) => format!(
                "{} to {}: {}",
                u.previous_tier,
                u.new_tier,
                outcome.as_str()
            ),
            None => format!("Nothing was changed: {}", outcome.as_str()),
        };
        if !without.is_empty() {
            details.push_str("; went without ");
            details.push_str(&without.join(", "));
        }
        ctx.set_current_details(details);
        ctx.upsert_search_attributes([STATUS.value_set(outcome.as_str().to_owned())]);
        Ok(TierUpgradeResult {
            outcome,
            upgraded,
            without,
        })
    }

    fn remaining(ctx: &WorkflowContext<Self>, until: DateTime<Utc>) -> Duration {
        ctx.workflow_time()
            .map(|now| {
                (until - DateTime::<Utc>::from(now))
                    .to_std()
                    .unwrap_or_default()
            })
            .unwrap_or_default()
            .max(options::SHORTEST_WAIT)
    }
}
