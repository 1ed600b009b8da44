//! Tests of the house itself, which need nothing running: who may know whom, and whether today's
//! workflows still follow yesterday's histories.

mod architecture;
mod compose;
mod replay;
