//! What each command does.

pub(crate) mod check;
pub(crate) mod health;
pub(crate) mod load;
pub(crate) mod serve;
pub(crate) mod token;
