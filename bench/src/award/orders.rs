//! Orders and whose they are.

use anyhow::{Result, anyhow, bail};
use chrono::Utc;
use domain::inbound::{self, Message, topic};
use domain::{Award, Command, Tier};
use serde_json::json;
use sqlx::PgExecutor;
use uuid::Uuid;

/// What an order costs: one point, by the rules of the repository.
const AMOUNT: &str = "100.00";
/// How far apart in their table the customers of consecutive orders are: a prime, so that it is
/// everybody's turn.
const STRIDE: usize = 7_919;

/// Customers who are called after what they are for.
#[derive(Debug, Clone)]
pub struct Customers {
    name: String,
    /// How many.
    pub count: usize,
}

impl Customers {
    /// So many customers of this name.
    pub fn new(name: impl Into<String>, count: usize) -> Self {
        Self {
            name: name.into(),
            count,
        }
    }

    /// The id of one of them.
    fn id(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    /// What all of their ids, and nobody else's, look like in SQL.
    pub fn pattern(&self) -> String {
        format!("{}-%", self.name)
    }

    /// Opens their accounts, in the highest tier, so that nothing but awards is measured.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn open(&self, database: impl PgExecutor<'_>) -> Result<()> {
        sqlx::query(
            "INSERT INTO customers (customer_id, tier)
             SELECT $1 || '-' || n, $2 FROM generate_series(0, $3 - 1) AS n
             ON CONFLICT DO NOTHING",
        )
        .bind(&self.name)
        .bind(Tier::Platinum.as_str())
        .bind(i64::try_from(self.count)?)
        .execute(database)
        .await?;
        Ok(())
    }
}

/// Orders of some customers, each worth one point.
#[derive(Debug, Clone)]
pub struct Orders {
    name: String,
    customers: Customers,
    /// How many.
    pub count: usize,
}

/// One order.
#[derive(Debug, Clone)]
pub struct Order {
    /// Whose.
    pub customer: String,
    /// The number of that customer.
    pub customer_number: usize,
    id: Uuid,
}

impl Orders {
    /// So many orders of these customers. Those of another name are others.
    pub fn new(name: impl Into<String>, customers: &Customers, count: usize) -> Self {
        Self {
            name: name.into(),
            customers: customers.clone(),
            count,
        }
    }

    /// The orders.
    pub fn all(&self) -> impl Iterator<Item = Order> {
        (0..self.count).map(|number| {
            let customer_number = (number * STRIDE) % self.customers.count;
            let name = format!("{}-{number}", self.name);
            Order {
                customer: self.customers.id(customer_number),
                customer_number,
                id: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
            }
        })
    }
}

impl Order {
    /// As it stands on Kafka.
    pub fn json(&self) -> String {
        json!({
            "customerId": self.customer, "orderId": self.id, "amount": AMOUNT, "currency": "USD",
        })
        .to_string()
    }
}

/// An order on Kafka as the ledger takes it, by the code that the intake uses.
///
/// # Errors
/// When it is refused.
pub fn read(json: &[u8]) -> Result<Award> {
    let now = Utc::now();
    let message = Message {
        topic: topic::ORDERS,
        partition: 0,
        offset: 0,
        key: None,
        headers: &[],
        value: Some(json),
        timestamp: now,
    };
    match inbound::read(&message, now) {
        Ok(Some(Command::Award(award))) => Ok(award),
        Ok(_) => bail!("an order is read as something else"),
        Err(refusal) => Err(anyhow!("an order is refused: {refusal}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn orders_are_distinct_and_everybody_has_as_many() -> Result<()> {
        let customers = Customers::new("c", 100);
        let orders = Orders::new("o", &customers, 300);
        let awards = orders.all().map(|order| read(order.json().as_bytes()));
        let awards = awards.collect::<Result<Vec<_>>>()?;
        let ids: BTreeSet<_> = awards.iter().map(|award| award.event_id.as_str()).collect();
        assert_eq!(ids.len(), 300);
        for number in 0..100 {
            let id = customers.id(number);
            let theirs = awards
                .iter()
                .filter(|award| award.customer_id.as_str() == id);
            assert_eq!(theirs.count(), 3, "{id}");
        }
        Ok(())
    }
}
