//! What each command does.

pub(crate) mod check;
pub(crate) mod health;
#[cfg(feature = "cassandra")]
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod token;
