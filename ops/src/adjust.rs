//! `meed adjust`: an adjusting transfer that a person decided on, once per id.

use anyhow::{Result, bail, ensure};
use clap::Args;
use domain::CustomerId;
use store::{
    PgPool,
    adjustments::{self, Adjusted, Adjustment, What},
};

/// The longest id and reason.
const TEXT_MAX_CHARS: usize = 200;

/// What is to be adjusted.
#[derive(Debug, Args)]
pub struct Adjust {
    /// The customer's id
    #[arg(long)]
    customer: String,
    /// How many points more, or fewer when negative
    #[arg(
        long,
        allow_hyphen_values = true,
        required_unless_present = "release_hold",
        conflicts_with = "release_hold"
    )]
    points: Option<i64>,
    /// Release the hold of this redemption instead, which is not under way any more
    #[arg(long, value_name = "REDEEM_REQUEST_ID")]
    release_hold: Option<String>,
    /// The adjustment's own id: the same one again changes nothing
    #[arg(long)]
    id: String,
    /// Why; it stands in the audit record
    #[arg(long)]
    reason: String,
}

/// A text of a sensible length, which the option of this name gives.
///
/// # Errors
/// When it is empty, too long, or cannot be stored.
pub fn text<'a>(name: &str, text: &'a str) -> Result<&'a str> {
    let text = text.trim();
    let count = text.chars().count();
    ensure!(
        (1..=TEXT_MAX_CHARS).contains(&count) && !text.contains('\0'),
        "--{name} has {count} characters; 1 to {TEXT_MAX_CHARS} are possible"
    );
    Ok(text)
}

/// Posts the adjustment and says what came of it.
///
/// # Errors
/// When it cannot be posted, or the database cannot be asked.
pub async fn run(pool: &PgPool, adjust: Adjust) -> Result<()> {
    let customer = CustomerId::new(adjust.customer)?;
    let what = match (adjust.points, adjust.release_hold) {
        (Some(0), _) => bail!("--points 0 changes nothing"),
        (Some(points), _) => What::Points(points),
        (None, Some(hold)) => What::ReleaseHold(hold),
        (None, None) => bail!("--points or --release-hold says what is to be adjusted"),
    };
    let adjustment = Adjustment {
        id: text("id", &adjust.id)?,
        customer: &customer,
        what,
        reason: text("reason", &adjust.reason)?,
        actor: &crate::addresses::operator(),
    };
    match adjustments::post(pool, &adjustment).await? {
        Adjusted::Posted(available) => {
            println!("Posted. Customer {customer} has {available} points to spend.");
        }
        Adjusted::Again => {
            println!("Nothing to do: it had been posted before.");
        }
        Adjusted::Different => bail!("the id {} was used for another adjustment", adjust.id),
        Adjusted::NotEnough(available) => {
            bail!("customer {customer} has only {available} points to spend; nothing was posted")
        }
        Adjusted::NoAccount => bail!("customer {customer} has no account"),
        Adjusted::NoSuchHold => bail!(
            "customer {customer} has no open hold of that redemption, or the redemption is under way"
        ),
    }
    Ok(())
}
