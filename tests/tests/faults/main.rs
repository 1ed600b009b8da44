//! What is taken away while Meed works: components, processes, whole versions of it. On stacks of
//! their own, and in a binary of its own so that nothing else runs beside them.

mod notified;
mod outages;
mod rolling;
mod rolling_load;
