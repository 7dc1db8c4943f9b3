//! The demo: a page with two devices that shows resume at work, with every asset inside the binary.
//!
//! Served under `/demo/` beside the API, by `serve --dev` only. The assets are those of `demo/static` in the repository,
//! as they lay there at the build, with entity tags and byte ranges.
//!
//! **Tokens.** The page plays as one of [`VIEWERS`], and gets their tokens by `POST /demo/token/{viewer}`. No real viewer
//! can be touched by that: there are tokens for these ids only, far below those that `load` uses. Nor can another page:
//! a browser says where a request comes from, and only this page's own origin is answered; unless `--dev-allow-remote`
//! was given, the host must be this machine, so that a foreign name which leads here (DNS rebinding) is refused.
//!
//! **The limits.** GET and HEAD for assets, POST without a body for tokens. A content security policy holds the page to
//! its own origin.

use crate::cli::TokenFlags;
use crate::commands::token;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, HeaderName, IF_NONE_MATCH, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, uri::Authority};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use bytes::Bytes;
use playhead_core::UserId;
use range_requests::headers::{if_range::IfRange, range::HttpRange};
use range_requests::serve_file_with_http_range;
use rust_embed::RustEmbed;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

#[derive(RustEmbed)]
#[folder = "../../demo/static/"]
struct Assets;

/// Who may play in the demo. Ids that fit no JavaScript number, which is why ids are strings there.
const VIEWERS: [UserId; 3] =
    [UserId(-9_000_000_000_000_000_001), UserId(-9_000_000_000_000_000_002), UserId(-9_000_000_000_000_000_003)];
const TOKEN_TTL: Duration = Duration::from_secs(60 * 60);

/// Nothing from elsewhere; the media engine takes its stream from a `blob:`, and the player's timer is such a Worker.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; \
                      connect-src 'self'; worker-src blob:; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; \
                      form-action 'none'";

/// Where a browser says that a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What signs the demo's tokens.
pub(crate) struct Signer {
    pub(crate) secret: Vec<u8>,
    pub(crate) flags: TokenFlags,
    /// The server may be reached from other machines, under whatever name.
    pub(crate) is_remote_allowed: bool,
}

/// The demo's paths.
pub(crate) fn router(signer: Signer) -> Router {
    Router::new()
        .route("/demo", get(async || Redirect::permanent("/demo/")))
        .route("/demo/", get(async |headers, range, if_range| asset("index.html", &headers, range, if_range)))
        .route(
            "/demo/{*path}",
            get(async |Path(path): Path<String>, headers, range, if_range| asset(&path, &headers, range, if_range)),
        )
        .route("/demo/token/{viewer}", post(give_token))
        .with_state(Arc::new(signer))
        .layer(middleware::map_response(guarded))
}

fn asset(path: &str, headers: &HeaderMap, range: Option<HttpRange>, if_range: Option<IfRange>) -> Response {
    let Some(file) = Assets::get(path) else {
        return (StatusCode::NOT_FOUND, "The demo has no such file.\n").into_response();
    };
    let hash: String = file.metadata.sha256_hash()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = HeaderValue::try_from(format!("\"{hash}\"")).expect("hexadecimal digits may stand in a header");
    let head = [(ETAG, tag.clone()), (ACCEPT_RANGES, HeaderValue::from_static("bytes"))];
    if headers.get(IF_NONE_MATCH) == Some(&tag) {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    let range = match (range, if_range) {
        (Some(range), Some(condition)) => condition.evaluate(range, None, Some(&tag)),
        (range, _) => range,
    };
    let bytes = match file.data {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    match serve_file_with_http_range(bytes, range) {
        Ok(part) => (head, [(CONTENT_TYPE, file.metadata.mimetype())], part).into_response(),
        Err(beyond) => (head, beyond).into_response(),
    }
}

async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // A new build has new assets; the entity tags tell.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    response
}

async fn give_token(State(signer): State<Arc<Signer>>, Path(viewer): Path<String>, headers: HeaderMap) -> Response {
    if !is_own_page(&headers, signer.is_remote_allowed) {
        return (StatusCode::FORBIDDEN, "Open the demo under the address that the server printed.\n").into_response();
    }
    let Some(viewer) = VIEWERS.into_iter().find(|known| known.to_string() == viewer) else {
        return (StatusCode::NOT_FOUND, "The demo has no such viewer.\n").into_response();
    };
    match token::mint(&signer.secret, &signer.flags, viewer, TOKEN_TTL) {
        Ok(token) => ([(CACHE_CONTROL, "no-store")], token).into_response(),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "a token for the demo could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Whether a request comes from a page of this server, as far as its browser tells; other programs tell nothing, and
/// could as well read the token that was printed.
fn is_own_page(headers: &HeaderMap, is_remote_allowed: bool) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let Some(host) = text(&HOST) else { return false };
    let from_here = text(&ORIGIN).is_none_or(|origin| origin.strip_prefix("http://") == Some(host));
    let same_origin = text(&SEC_FETCH_SITE).is_none_or(|site| site == "same-origin");
    from_here && same_origin && (is_remote_allowed || is_this_machine(host))
}

fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_server_get_tokens() {
        let own = |headers: &[(&str, &str)], is_remote_allowed| {
            let headers = headers.iter().map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            });
            is_own_page(&headers.collect(), is_remote_allowed)
        };
        let local = ("host", "127.0.0.1:8080");
        for (headers, expected) in [
            (&[local][..], true),
            (&[("host", "localhost:8080")], true),
            (&[("host", "[::1]:8080")], true),
            (&[local, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")], true),
            (&[], false),
            (&[local, ("origin", "http://127.0.0.1:8081")], false),
            (&[local, ("origin", "http://localhost:8080")], false),
            (&[local, ("origin", "null")], false),
            (&[local, ("origin", "https://evil.example")], false),
            (&[local, ("sec-fetch-site", "cross-site")], false),
            (&[local, ("sec-fetch-site", "same-site")], false),
            (&[local, ("sec-fetch-site", "none")], false),
            (&[("host", "evil.example:8080"), ("origin", "http://evil.example:8080")], false),
            (&[("host", "127.0.0.1.evil.example")], false),
            (&[("host", "user@127.0.0.1"), ("origin", "http://evil.example")], false),
            (&[("host", "192.168.0.7:8080")], false),
        ] {
            assert_eq!(own(headers, false), expected, "{headers:?}");
        }
        assert!(own(&[("host", "192.168.0.7:8080"), ("origin", "http://192.168.0.7:8080")], true));
        assert!(!own(&[("host", "192.168.0.7:8080"), ("origin", "http://evil.example")], true));
    }
}
