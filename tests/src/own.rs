//! Systems of a journey's own, with several of each service or of the brokers; one at a time.

use stack::StackBuilder;
use tokio::sync::Semaphore;

use crate::{
    breakable::PLACES,
    components::{Components, set_up, started_as},
    system::{System, system_on},
};

static TURN: Semaphore = Semaphore::const_new(1);

/// A system with all its services, this many blocks of ports after the shared one and made as `shape` says.
/// [`end`] ends it.
///
/// # Panics
/// When it cannot be had.
pub async fn own_system(
    block: u16,
    shape: impl FnOnce(StackBuilder) -> StackBuilder + Send + 'static,
) -> System {
    let turn = TURN.acquire().await.expect("it is never closed");
    let place = PLACES.acquire().await.expect("it is never closed");
    let components = tokio::task::spawn_blocking(move || {
        let components = started_as(block, shape);
        set_up(&components.env, &["migrate"]);
        set_up(&components.env, &["topics", "apply"]);
        for service in components.stack.services() {
            let started = components.stack.start_planned(&service);
            started.expect("the service starts");
        }
        // For the rest of the process, like the shared ones; what runs is ended before.
        &*Box::leak(Box::new(components))
    });
    let components: &'static Components = components.await.expect("the system starts");
    system_on(components, Box::new((turn, place))).await
}

/// Ends the processes of such a system.
///
/// # Panics
/// When one does not end.
pub async fn end(system: System) {
    let components = system.components;
    system.pool.close().await;
    tokio::task::spawn_blocking(|| components.stack.end_all())
        .await
        .expect("ending them does not panic")
        .expect("they end");
}
