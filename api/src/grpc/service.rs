//! The transactions of other services: read, posted, answered. What they may be is decided in
//! `domain` and `store`.

use std::sync::Arc;

use domain::{
    CustomerId, TransactionId,
    money::Amount,
    transaction::{Direction, Transaction},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::{
    audit, transaction,
    transactions::{self, Booked},
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::transactions::{
    AddTransactionRequest, AddTransactionResponse, TransactionType,
    transactions_server::Transactions,
};
use crate::App;

/// How often the same request is tried that met another one.
const RACES: u32 = 5;
/// The longest request id that is taken over, in bytes.
const REQUEST_ID_MAX_BYTES: usize = 128;

/// Posts transactions.
pub(super) struct Booking {
    app: Arc<App>,
}

/// Who asks, from where, in which request.
struct Origin {
    actor: String,
    address: Option<String>,
    request_id: String,
}

impl Origin {
    fn of<T>(request: &Request<T>) -> Self {
        let shown = request.peer_certs();
        let certificate = shown.as_ref().and_then(|chain| chain.first());
        let actor = certificate.map_or_else(
            || "grpc".to_owned(),
            |certificate| format!("grpc sha256:{}", hex::encode(Sha256::digest(certificate))),
        );
        let told = request.metadata().get("x-request-id");
        let told = told.and_then(|id| id.to_str().ok()).filter(|id| {
            (1..=REQUEST_ID_MAX_BYTES).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_graphic())
        });
        Self {
            actor,
            address: request.remote_addr().map(|peer| peer.ip().to_string()),
            request_id: told.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned),
        }
    }
}

impl Booking {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    async fn book(&self, transaction: &Transaction, origin: &Origin) -> Result<Booked, Status> {
        let mut races = 0;
        loop {
            match self.book_once(transaction, origin).await {
                Err(store::Error::Raced) if races < RACES => races += 1,
                booked => return booked.map_err(|error| fault(&error)),
            }
        }
    }

    async fn book_once(
        &self,
        transaction: &Transaction,
        origin: &Origin,
    ) -> Result<Booked, store::Error> {
        let programme = self.app.programme.current();
        let mut tx = transaction::begin(&self.app.pool).await?;
        let booked = transactions::book(&mut tx, transaction, &programme).await?;
        let Booked::New(booking) = &booked else {
            return Ok(booked);
        };
        let change = audit::Change {
            actor: &origin.actor,
            action: "transaction.add",
            subject: transaction.transaction_id.as_str(),
            request_id: &origin.request_id,
            address: origin.address.as_deref(),
            detail: json!({
                "customerId": transaction.customer_id,
                "transactionType": transaction.direction.as_str(),
                "amount": transaction.amount.to_string(),
                "points": booking.points,
            }),
        };
        audit::write(&mut tx, &change).await?;
        transaction::commit(tx, "transaction").await?;
        Ok(booked)
    }
}

#[tonic::async_trait]
impl Transactions for Booking {
    async fn add_transaction(
        &self,
        request: Request<AddTransactionRequest>,
    ) -> Result<Response<AddTransactionResponse>, Status> {
        let origin = Origin::of(&request);
        let transaction = read(request.into_inner())?;
        let booked = self.book(&transaction, &origin).await?;
        let (booking, repeated) = match booked {
            Booked::New(booking) => (booking, false),
            Booked::Same(booking) => (booking, true),
            refused => return Err(refusal(&transaction, &refused)),
        };
        // Who was told of it looks at the balance next.
        self.app.cache.lapse(&transaction.customer_id);
        Ok(Response::new(AddTransactionResponse {
            transaction_id: transaction.transaction_id.into(),
            points: booking.points.get(),
            balance_after: booking.available_after.get(),
            repeated,
        }))
    }
}

/// The transaction that is asked for, once it makes sense.
fn read(request: AddTransactionRequest) -> Result<Transaction, Status> {
    let wrong = |field: &str, why: &dyn std::fmt::Display| {
        Status::invalid_argument(format!("{field}: {why}"))
    };
    let direction = match request.transaction_type() {
        TransactionType::Credit => Direction::Credit,
        TransactionType::Debit => Direction::Debit,
        TransactionType::Unspecified => {
            return Err(wrong("transaction_type", &"it is neither CREDIT nor DEBIT"));
        }
    };
    let transaction = Transaction {
        transaction_id: TransactionId::new(request.transaction_id)
            .map_err(|error| wrong("transaction_id", &error))?,
        customer_id: CustomerId::new(request.user_id).map_err(|error| wrong("user_id", &error))?,
        direction,
        amount: Amount::parse(&request.amount).map_err(|error| wrong("amount", &error))?,
        description: request.description,
        additional_data: request.additional_data,
    };
    transaction
        .checked()
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Why a transaction was not posted.
fn refusal(transaction: &Transaction, booked: &Booked) -> Status {
    let Transaction {
        transaction_id,
        customer_id,
        ..
    } = transaction;
    match booked {
        Booked::Conflict => Status::already_exists(format!(
            "transaction {transaction_id} came before with another content"
        )),
        Booked::NoPoints(error) => Status::invalid_argument(format!("amount: {error}")),
        Booked::TooMany => Status::failed_precondition(format!(
            "customer {customer_id} cannot hold that many points"
        )),
        Booked::NotEnough(available) => Status::failed_precondition(format!(
            "customer {customer_id} can spend {available} points, and no more"
        )),
        Booked::NoAccount => Status::not_found(format!("customer {customer_id} has no account")),
        Booked::New(_) | Booked::Same(_) => Status::internal("it was posted"),
    }
}

/// What is told of a fault: nothing of the inside.
fn fault(error: &store::Error) -> Status {
    tracing::error!(%error, "a transaction failed");
    if error.is_retryable() {
        Status::unavailable("something that this needs is out of reach; try again")
    } else {
        Status::internal("something went wrong on this side")
    }
}
