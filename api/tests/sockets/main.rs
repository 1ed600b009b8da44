//! Sockets on which players are told things: who is let in, what comes, and how they end.

#[path = "../support/mod.rs"]
mod app;
mod delivery;
mod ends;
mod support;
