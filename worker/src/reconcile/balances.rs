//! Ledger against balances: every balance is the fold of its transfers.
//!
//! A projection is rebuilt under its customer's lock. Where the transfers themselves do not follow
//! from each other, nobody knows what it should be, and a person has to look.

use domain::Comparison;
use store::reconcile::{
    balances::{self, Account, Projection, Rebuilt},
    findings::{self, Found},
};

use super::work::{Trouble, Work};

const BALANCE: &str = "BALANCE_WRONG";
const LEDGER: &str = "LEDGER_INCONSISTENT";
/// How many customers are looked at together.
const AT_A_TIME: i64 = 500;

/// Looks at every customer.
pub async fn compare(work: &mut Work) -> Result<(), Trouble> {
    let mut after: String = work.cursor().unwrap_or_default();
    loop {
        let page = balances::page(&work.pool, &after, AT_A_TIME).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.customer_id);
        let wrong: Vec<&Account> = page.iter().filter(|a| a.stored != a.folded).collect();
        work.looked_at(page.len(), page.len() - wrong.len());
        for account in wrong {
            compare_one(work, account).await?;
        }
        work.reached(&after);
    }
    let kinds = [BALANCE, LEDGER];
    let started_at = work.input.started_at;
    findings::end_unseen(&work.pool, Comparison::Balances, &kinds, started_at, None).await?;
    Ok(())
}

async fn compare_one(work: &mut Work, account: &Account) -> Result<(), Trouble> {
    let found = wrong(account);
    if !work.input.repair {
        return work.found(&found).await;
    }
    match balances::rebuild(&work.pool, &account.customer_id).await? {
        Rebuilt::Done => work.repaired(&found).await,
        Rebuilt::Inconsistent(first) => {
            let detail = format!(
                "{}; {first} does not follow from the transfers before it",
                found.detail
            );
            work.found(&Found {
                kind: LEDGER,
                detail,
                fix: format!(
                    "meed find {} and meed verify show what was changed; a transfer is never \
                     changed back by a command: restore it from a backup",
                    account.customer_id
                ),
                ..found
            })
            .await
        }
    }
}

fn wrong(account: &Account) -> Found {
    let customer = &account.customer_id;
    let words = |p: &Projection| {
        format!(
            "available {}, held {}, lifetime earned {}, version {}",
            p.available, p.held, p.lifetime_earned, p.version
        )
    };
    Found {
        comparison: Comparison::Balances,
        kind: BALANCE,
        subject: customer.clone(),
        detail: format!(
            "the balance of {customer} says {}; its transfers say {}",
            words(&account.stored),
            words(&account.folded)
        ),
        fix: "meed reconcile --repair".to_owned(),
        happened_at: None,
        evidence: serde_json::json!({}),
    }
}
