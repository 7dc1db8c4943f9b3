//! CORS: which web pages may call, and what their browsers are told.
//!
//! Called by [`crate::worker`] around every answer, if origins are configured; else nothing of this is in its way.
//!
//! **The promise.** With origins configured, every answer that is made here carries `Vary: Origin` and the headers that a
//! page may read, whatever its status; and, if the request's origin is one of them, `Access-Control-Allow-Origin` with
//! exactly that origin. Without it a page can't tell "try again in 4 s" from a dead network. A preflight is answered
//! without a token and is never shed. Cookies are never allowed: the token is a header. **What it leaves out.** A head
//! that hyper refuses by itself (431, or no HTTP at all) is answered without headers.

use crate::problem::kept;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request};

/// The longest that Chromium remembers a preflight.
const MAX_AGE_SECONDS: &str = "7200";

/// The origins whose pages may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    /// Exact values of `Origin`; or `*` alone, for all.
    values: Vec<HeaderValue>,
    are_all: bool,
}

/// A text is no origin as browsers send it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no origin: give scheme://host or scheme://host:port in lower case, with no path and no default port, such as https://watch.example.com"
)]
pub struct NotAnOrigin(String);

impl Origins {
    /// Every origin: for trying it out.
    #[must_use]
    pub fn all() -> Self {
        Self { values: vec![HeaderValue::from_static("*")], are_all: true }
    }

    /// Exactly these.
    ///
    /// # Errors
    /// The first that no browser would send, so that it would never match.
    pub fn exactly(origins: &[String]) -> Result<Self, NotAnOrigin> {
        let value = |origin: &String| {
            let value = is_origin(origin).then(|| HeaderValue::from_str(origin).ok()).flatten();
            value.ok_or_else(|| NotAnOrigin(origin.clone()))
        };
        Ok(Self { values: origins.iter().map(value).collect::<Result<_, _>>()?, are_all: false })
    }

    /// What the answer to this request will say.
    pub(crate) fn grant(&self, headers: &HeaderMap) -> Grant {
        if self.are_all {
            return Grant::Origin(0);
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        let (Some(origin), None) = (origins.next(), origins.next()) else { return Grant::Nobody };
        self.values.iter().position(|value| value == origin).map_or(Grant::Nobody, Grant::Origin)
    }

    /// Puts it into the answer's head.
    pub(crate) fn mark(&self, grant: Grant, headers: &mut HeaderMap) {
        if let Grant::Origin(number) = grant {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.values[number].clone());
        }
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After, Playhead-Interval"));
    }
}

/// Who may read an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// No page of another origin.
    Nobody,
    /// The origin with this number.
    Origin(usize),
}

/// As browsers spell it: lower case, no default port, nothing after the host.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "://",
    };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
    let is_host = !host.is_empty()
        && !host.ends_with(':')
        && host.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b':' | b'[' | b']'));
    is_scheme && is_host && !host.ends_with(default_port)
}

/// Whether a browser asks beforehand.
pub(crate) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What it may do; the same for every path.
pub(crate) fn preflight() -> Response {
    let mut response = kept();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_SECONDS));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for good in [
            "https://watch.example.com",
            "http://localhost:5173",
            "https://example.com:8443",
            "http://[::1]:3000",
            "https://xn--bcher-kva.example",
            "capacitor://localhost",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "example.com",
            "https://",
            "://example.com",
            "https://example.com/",
            "https://example.com/app",
            "https://Example.com",
            "HTTPS://example.com",
            "https://example.com:443",
            "http://example.com:80",
            "https://example.com:",
            "https://*.example.com",
            "https://user@example.com",
            "https://example.com?x",
            "https://bücher.example",
            "https://example.com https://b.example",
        ] {
            assert!(Origins::exactly(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_one_exact_origin_is_granted() {
        let origins = Origins::exactly(&["https://a.example".to_owned(), "https://b.example".to_owned()]).unwrap();
        let grant = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ORIGIN, HeaderValue::from_static(value));
            }
            (origins.grant(&headers), Origins::all().grant(&headers))
        };
        assert_eq!(grant(&["https://b.example"]), (Grant::Origin(1), Grant::Origin(0)));
        for values in [
            &[][..],
            &["null"],
            &["https://b.example."],
            &["https://B.example"],
            &["https://b.example.evil.example"],
            &["http://b.example"],
            &["https://a.example", "https://b.example"],
        ] {
            assert_eq!(grant(values), (Grant::Nobody, Grant::Origin(0)), "{values:?}");
        }
    }
}
