//! Runs the whole of Meed under load while everything is killed, paused and cut off, and decides
//! by an oracle of its own whether anything was lost or done twice.
//!
//! * [`plan`] chooses everything from a seed,
//! * [`load`] sends it, [`faults`] and [`services`] break things meanwhile,
//! * [`quiesce`] lets what is under way come to its end,
//! * [`observe`] reads what came of it, and [`oracle`] judges that,
//! * [`report`] says so.
//!
//! Nothing here depends on the engine: the oracle reads tables, topics and the merchants' books,
//! and works out by itself what they must hold.

pub mod acknowledger;
pub mod faults;
pub mod load;
pub mod merchants;
pub mod observe;
pub mod options;
pub mod oracle;
pub mod plan;
pub mod planted;
pub mod points;
pub mod proxy;
pub mod quiesce;
pub mod report;
pub mod run;
pub mod sender;
pub mod services;
pub mod system;
pub mod topics;
