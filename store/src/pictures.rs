//! Accounts as they are now, for many who ask at the same time: those that are asked for while the
//! ledger is being read are read together afterwards, in one statement.
//!
//! The crate `dataloader` gathers too, but reads within the future of one of those who ask, so that
//! the others lose their answer when that one hangs up.

use std::{collections::HashMap, sync::Arc, time::Duration};

use domain::CustomerId;
use sqlx::PgPool;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::{
    Error,
    history::{self, Picture},
};

/// How many statements are under way at the same time.
const STATEMENTS: usize = 2;
/// How many accounts are read in one.
const AT_A_TIME: usize = 250;
/// How long a statement may take, so that one that hangs holds up nobody for long.
const WITHIN: Duration = Duration::from_secs(3);

type Answer = Result<Option<Picture>, Arc<Error>>;

struct Question {
    customer: CustomerId,
    answer: oneshot::Sender<Answer>,
}

/// Reads accounts for many who ask.
#[derive(Debug, Clone)]
pub struct Pictures(mpsc::UnboundedSender<Question>);

impl Pictures {
    /// From this database, until this and its clones are dropped.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn of(pool: &PgPool) -> Self {
        let (ask, asked) = mpsc::unbounded_channel();
        let asked = Arc::new(Mutex::new(asked));
        for _ in 0..STATEMENTS {
            tokio::spawn(answer_all(pool.clone(), Arc::clone(&asked)));
        }
        Self(ask)
    }

    /// An account as it is after this was asked, without breakdown and changes; nothing for a customer
    /// without one.
    ///
    /// # Errors
    /// What the database reports to all who asked at the same time.
    pub async fn read(&self, customer: &CustomerId) -> Result<Option<Picture>, Error> {
        let (answer, answered) = oneshot::channel();
        let customer = customer.clone();
        // When nobody takes it, `answer` is gone, and whoever waits for it learns that.
        let _ = self.0.send(Question { customer, answer });
        answered
            .await
            .map_err(|_| sqlx::Error::WorkerCrashed)?
            .map_err(Error::from)
    }
}

async fn answer_all(pool: PgPool, asked: Arc<Mutex<mpsc::UnboundedReceiver<Question>>>) {
    loop {
        let mut questions = Vec::new();
        if asked
            .lock()
            .await
            .recv_many(&mut questions, AT_A_TIME)
            .await
            == 0
        {
            return;
        }
        // Who has gone away needs nothing.
        questions.retain(|question| !question.answer.is_closed());
        if questions.is_empty() {
            continue;
        }
        match read(&pool, &questions).await {
            Ok(pictures) => {
                for Question { customer, answer } in questions {
                    let _ = answer.send(Ok(pictures.get(&customer).cloned()));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for Question { answer, .. } in questions {
                    let _ = answer.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}

async fn read(
    pool: &PgPool,
    questions: &[Question],
) -> Result<HashMap<CustomerId, Picture>, Error> {
    let customers: Vec<&CustomerId> = questions.iter().map(|q| &q.customer).collect();
    let reading = history::pictures(pool, &customers);
    match tokio::time::timeout(WITHIN, reading).await {
        Ok(pictures) => Ok(pictures?.into_iter().collect()),
        Err(elapsed) => Err(sqlx::Error::Io(elapsed.into()).into()),
    }
}
