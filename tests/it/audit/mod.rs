//! The audit trail: what is written, that nothing happens without it, and how long it is kept.

mod events;
pub(crate) mod page;
mod retention;
mod transaction;
