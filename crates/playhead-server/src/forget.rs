//! Forgetting: one title, or all that is known of a user.
//!
//! Handlers of [`crate::routes`]. **The promise.** A 204 means that the row is gone and stays gone, across crashes too:
//! what happened before is barred, so that a late item of some device does not bring it back. What happens afterwards is
//! stored as ever. Forgetting what is not there is no error, so a request may be repeated. If it can't be made durable
//! the answer is a problem, and but for [`Problem::OutcomeUnknown`] nothing was forgotten.

use crate::problem::{Problem, kept};
use crate::routes::{Api, Viewer, title_of};
use axum::extract::State;
use axum::response::Response;
use http::Uri;
use playhead_core::{Change, UserId, Write};

/// `DELETE /api/v1/stream/progress/{movie_id}`
pub(crate) async fn title(State(api): State<Api>, Viewer(user): Viewer, uri: Uri) -> Result<Response, Problem> {
    let movie = title_of(&uri)?;
    carry_out(&api, user, Change::Forget { movie }).await
}

/// `DELETE /api/v1/stream/progress`
pub(crate) async fn user(State(api): State<Api>, Viewer(user): Viewer) -> Result<Response, Problem> {
    carry_out(&api, user, Change::Erase).await
}

async fn carry_out(api: &Api, user: UserId, change: Change) -> Result<Response, Problem> {
    api.engine.commit(vec![Write { user, change }]).await?;
    Ok(kept())
}
