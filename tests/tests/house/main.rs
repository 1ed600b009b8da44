//! Tests of the house itself, which need nothing running: who may know whom, what the documentation
//! says, and whether today's workflows still follow yesterday's histories.

mod api_docs;
mod architecture;
mod compose;
mod helm;
mod migrations;
mod observability;
mod replay;
