//! From a token to its viewer: the keys, what a token must say, and the memory of tokens that were verified.
//!
//! Called by [`crate::progress`] for each heartbeat (through the worker's [`TokenCache`]) and by the read handlers
//! (directly: reads are rare).
//!
//! **The promise.** A user is returned only for a token in exactly one `Authorization: Bearer` header whose signature
//! verifies under a configured key, by the algorithm of *that key* and never by the token's say, that has not expired,
//! is not from the future, names issuer and audience where these are configured, and holds the user claim once, as a
//! JSON integer or a canonical decimal string. All else is [`Problem::Unauthorized`], whatever the reason.
//! Nothing that a token carries (`jwk`, `jku`, `x5u`) is ever used as a key or fetched, and an extension that it
//! declares critical refuses it. No token is logged.
//!
//! **The cache.** Each player sends the same token every four seconds, so a verified one is remembered: under the
//! SHA-256 of all its bytes, until it expires, and only for as long as the keys are the ones that verified it. A cache
//! belongs to one worker and holds [`TOKENS_REMEMBERED_MAX`] tokens at most: two generations, of which the older is
//! forgotten when the younger is full. Refused tokens are not remembered.

use crate::problem::Problem;
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation};
use playhead_core::UserId;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value; // tidy-allow(json-fence): a token's claims are JSON, and no part of the HTTP contract
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// The most tokens that a worker remembers, at about 64 bytes each.
pub const TOKENS_REMEMBERED_MAX: usize = 1 << 18;

/// The shortest secret taken: as long as the hash that it keys.
pub const SECRET_BYTES_MIN: usize = 32;

/// How far the issuer's clock may be off.
const LEEWAY_SECONDS: u64 = 30;

/// What tokens must be signed with, and what they must say.
pub struct Authenticator {
    keys: Keys,
    validation: Validation,
    user_claim: String,
}

/// The configured keys. Their kind fixes the algorithm.
enum Keys {
    /// One shared secret.
    Hs256(DecodingKey),
}

/// What a token must say besides its expiry and its user.
#[derive(Debug, Clone)]
pub struct Claims {
    /// The `iss` that is required, if any.
    pub issuer: Option<String>,
    /// The `aud` that is required, if any.
    pub audience: Option<String>,
    /// The claim that holds the user's id.
    pub user: String,
}

/// The secret was shorter than [`SECRET_BYTES_MIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret must have at least {SECRET_BYTES_MIN} bytes")]
pub struct SecretTooShort;

impl Authenticator {
    /// Takes HS256 tokens signed with this secret.
    ///
    /// # Errors
    /// [`SecretTooShort`].
    pub fn hs256(secret: &[u8], claims: Claims) -> Result<Self, SecretTooShort> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(SecretTooShort);
        }
        let keys = Keys::Hs256(DecodingKey::from_secret(secret));
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if let Some(issuer) = &claims.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        // Without an audience of its own a service has no opinion about a token's.
        validation.validate_aud = claims.audience.is_some();
        if let Some(audience) = &claims.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Ok(Self { keys, validation, user_claim: claims.user })
    }

    /// The viewer who sends this request.
    pub(crate) fn viewer(&self, headers: &HeaderMap) -> Result<UserId, Problem> {
        Ok(self.verify(bearer(headers)?)?.user)
    }

    /// Changes whenever the keys do.
    fn generation(&self) -> u64 {
        match &self.keys {
            Keys::Hs256(_) => 0,
        }
    }

    fn verify(&self, token: &[u8]) -> Result<Verified, Problem> {
        let Keys::Hs256(key) = &self.keys;
        let TokenData { header, claims } =
            jsonwebtoken::decode::<ClaimSet>(token, key, &self.validation).map_err(|_| Problem::Unauthorized)?;
        // An extension that must be understood, and is not.
        if header.crit.is_some() {
            return Err(Problem::Unauthorized);
        }
        let user = match claims.get(&self.user_claim) {
            Some(Value::String(text)) => text.parse().ok(),
            Some(Value::Number(number)) => number.as_i64().map(UserId),
            _ => None,
        };
        let expires_s = match claims.get("exp") {
            Some(Value::Number(number)) => number.as_u64().or_else(|| whole_seconds(number.as_f64()?)),
            _ => None,
        };
        user.zip(expires_s).map(|(user, expires_s)| Verified { user, expires_s }).ok_or(Problem::Unauthorized)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn whole_seconds(seconds: f64) -> Option<u64> {
    (0.0..1e15).contains(&seconds).then_some(seconds as u64)
}

/// The token of the one `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Result<&[u8], Problem> {
    const SCHEME: &[u8] = b"Bearer ";
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Problem::Unauthorized);
    };
    match value.as_bytes().split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => Ok(token),
        _ => Err(Problem::Unauthorized),
    }
}

/// All claims of a token, each of which may occur only once.
struct ClaimSet(Vec<(String, Value)>);

impl ClaimSet {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for ClaimSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = ClaimSet;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("claims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ClaimSet, A::Error> {
                let mut claims = ClaimSet(Vec::new());
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if claims.get(&name).is_some() {
                        return Err(serde::de::Error::custom("a duplicate claim"));
                    }
                    claims.0.push((name, value));
                }
                Ok(claims)
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// What is remembered of a token.
#[derive(Clone, Copy)]
struct Verified {
    user: UserId,
    /// Seconds since the epoch.
    expires_s: u64,
}

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TokenDigest([u8; 32]);

impl TokenDigest {
    fn of(token: &[u8]) -> Self {
        Self(digest(&SHA256, token).as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl Hash for TokenDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// A digest is its own hash.
#[derive(Default)]
struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a digest hashes itself with write_u64")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Remembered = HashMap<TokenDigest, Verified, BuildHasherDefault<DigestHasher>>;

/// A worker's memory of verified tokens.
pub(crate) struct TokenCache {
    capacity: usize,
    generation: u64,
    young: Remembered,
    old: Remembered,
}

/// Whether a token had to be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    Hit,
    Miss,
}

impl TokenCache {
    /// An empty cache for this many tokens; 0 remembers none.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, generation: 0, young: Remembered::default(), old: Remembered::default() }
    }

    /// Tokens remembered.
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// The viewer who sends this request, at this second since the epoch.
    pub(crate) fn viewer(
        &mut self,
        authenticator: &Authenticator,
        headers: &HeaderMap,
        now_s: u64,
    ) -> (Result<UserId, Problem>, Lookup) {
        let token = match bearer(headers) {
            Ok(token) => token,
            Err(problem) => return (Err(problem), Lookup::Miss),
        };
        if self.capacity == 0 {
            return (authenticator.verify(token).map(|verified| verified.user), Lookup::Miss);
        }
        if self.generation != authenticator.generation() {
            *self = Self { generation: authenticator.generation(), ..Self::new(self.capacity) };
        }
        let digest = TokenDigest::of(token);
        if let Some(verified) = self.recall(&digest, now_s) {
            return (Ok(verified.user), Lookup::Hit);
        }
        let verified = authenticator.verify(token);
        if let Ok(verified) = verified {
            self.remember(digest, verified);
        }
        (verified.map(|verified| verified.user), Lookup::Miss)
    }

    fn recall(&mut self, digest: &TokenDigest, now_s: u64) -> Option<Verified> {
        if let Some(verified) = self.young.get(digest) {
            return (now_s < verified.expires_s).then_some(*verified);
        }
        let verified = self.old.remove(digest).filter(|verified| now_s < verified.expires_s)?;
        self.remember(*digest, verified);
        Some(verified)
    }

    fn remember(&mut self, digest: TokenDigest, verified: Verified) {
        if self.young.len() >= self.capacity.div_ceil(2) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, verified);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::hmac;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use http::HeaderValue;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    /// In the year 2096.
    const LATER: u64 = 4_000_000_000;

    fn claims() -> Claims {
        Claims { issuer: None, audience: None, user: "sub".to_owned() }
    }

    fn authenticator() -> Authenticator {
        Authenticator::hs256(SECRET, claims()).unwrap()
    }

    /// A token of exactly these bytes, well signed.
    fn sign(header: &str, claims: &str, secret: &[u8]) -> String {
        let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", BASE64.encode(tag))
    }

    fn token(claims: &str) -> String {
        sign(r#"{"alg":"HS256","typ":"JWT"}"#, claims, SECRET)
    }

    fn headers(authorization: &[&str]) -> HeaderMap {
        authorization.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
    }

    fn check(authenticator: &Authenticator, token: &str, expected: Option<i64>) {
        let viewer = authenticator.viewer(&headers(&[&format!("Bearer {token}")]));
        assert_eq!(viewer, expected.map(UserId).ok_or(Problem::Unauthorized), "{token}");
    }

    #[test]
    fn the_user_claim_is_an_integer_or_a_canonical_string() {
        let cases = [
            (r#""42""#, Some(42)),
            ("42", Some(42)),
            ("-7", Some(-7)),
            (r#""-9223372036854775808""#, Some(i64::MIN)),
            (r#""""#, None),
            (r#""042""#, None),
            (r#""+42""#, None),
            (r#""alice""#, None),
            ("42.0", None),
            ("1e3", None),
            ("9223372036854775808", None),
            ("null", None),
            ("[42]", None),
        ];
        for (sub, expected) in cases {
            check(&authenticator(), &token(&format!(r#"{{"sub":{sub},"exp":{LATER}}}"#)), expected);
        }
        check(&authenticator(), &token(&format!(r#"{{"exp":{LATER}}}"#)), None);
        check(&authenticator(), &token(&format!(r#"{{"sub":"1","sub":"2","exp":{LATER}}}"#)), None);
        let by_profile = Authenticator::hs256(SECRET, Claims { user: "profile".to_owned(), ..claims() }).unwrap();
        check(&by_profile, &token(&format!(r#"{{"sub":"x","profile":5,"exp":{LATER}}}"#)), Some(5));
        check(&by_profile, &token(&format!(r#"{{"profile":5,"profile":6,"exp":{LATER}}}"#)), None);
    }

    #[test]
    fn expiry_is_required_and_times_are_honoured() {
        for (times, expected) in [
            (r#""exp":4000000000"#, Some(1)),
            (r#""exp":4000000000.5"#, Some(1)),
            (r#""exp":4000000000,"nbf":1000"#, Some(1)),
            (r#""exp":1000"#, None),
            (r#""exp":"4000000000""#, None),
            (r#""exp":1e300"#, None),
            (r#""exp":-1"#, None),
            (r#""exp":null"#, None),
            (r#""exp":4000000000,"nbf":3999999999"#, None),
            (r#""exp":4000000000,"nbf":"soon""#, None),
            (r#""iat":1"#, None),
        ] {
            check(&authenticator(), &token(&format!(r#"{{"sub":"1",{times}}}"#)), expected);
        }
    }

    #[test]
    fn issuer_and_audience_are_required_once_configured() {
        let strict = Claims { issuer: Some("i".to_owned()), audience: Some("a".to_owned()), ..claims() };
        let strict = Authenticator::hs256(SECRET, strict).unwrap();
        for (claims, expected) in [
            (r#""iss":"i","aud":"a""#, Some(1)),
            (r#""iss":"i","aud":["b","a"]"#, Some(1)),
            (r#""iss":"i""#, None),
            (r#""aud":"a""#, None),
            (r#""iss":"x","aud":"a""#, None),
            (r#""iss":"i","aud":["b"]"#, None),
            (r#""iss":7,"aud":"a""#, None),
        ] {
            check(&strict, &token(&format!(r#"{{"sub":"1","exp":{LATER},{claims}}}"#)), expected);
        }
        check(&authenticator(), &token(&format!(r#"{{"sub":"1","exp":{LATER},"aud":"any","iss":"any"}}"#)), Some(1));
    }

    #[test]
    fn only_the_configured_key_and_its_algorithm_count() {
        let claims = format!(r#"{{"sub":"1","exp":{LATER}}}"#);
        let good = token(&claims);
        check(&authenticator(), &good, Some(1));
        for algorithm in ["none", "None", "NONE", "nOnE", "HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256", ""] {
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            check(&authenticator(), &sign(&header, &claims, SECRET), None);
            let unsigned = format!("{}.{}.", BASE64.encode(header), BASE64.encode(&claims));
            check(&authenticator(), &unsigned, None);
        }
        check(&authenticator(), &sign(r#"{"alg":"HS256"}"#, &claims, b"another secret of thirty-two bytes"), None);
        check(&authenticator(), &sign(r#"{"alg":"HS256","crit":["b64"]}"#, &claims, SECRET), None);
        check(&authenticator(), &sign(r#"{"typ":"JWT"}"#, &claims, SECRET), None);
        let foreign = r#"{"alg":"HS256","jku":"http://127.0.0.1:1/","kid":"x","jwk":{"kty":"oct","k":"AAAA"}}"#;
        check(&authenticator(), &sign(foreign, &claims, b"another secret of thirty-two bytes"), None);
        let parts: Vec<&str> = good.split('.').collect();
        for bad in [
            String::new(),
            parts[0].to_owned(),
            format!("{}.{}", parts[0], parts[1]),
            format!("{good}.{}", parts[2]),
            format!("{good}.x.y"),
            format!("{}.{}.!!!", parts[0], parts[1]),
            format!("{}.{}.{}", parts[0], parts[1], &parts[2][1..]),
            format!("{good} "),
            format!("{good}="),
        ] {
            check(&authenticator(), &bad, None);
        }
    }

    #[test]
    fn the_token_comes_in_one_bearer_header() {
        let good = token(&format!(r#"{{"sub":"1","exp":{LATER}}}"#));
        let bearer = format!("Bearer {good}");
        let viewer = |values: &[&str]| authenticator().viewer(&headers(values)).ok();
        assert_eq!(viewer(&[&bearer]), Some(UserId(1)));
        assert_eq!(viewer(&[&format!("bearer {good}")]), Some(UserId(1)));
        let cases: [&[&str]; 6] = [&[], &["Bearer"], &["Bearer "], &[&good], &[&bearer, &bearer], &["Basic dTpw"]];
        for values in cases {
            assert_eq!(viewer(values), None, "{values:?}");
        }
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert_eq!(Authenticator::hs256(&SECRET[1..], claims()).err(), Some(SecretTooShort));
    }

    #[test]
    fn a_verified_token_is_remembered_until_it_expires_and_a_refused_one_is_not() {
        let (authenticator, mut cache) = (authenticator(), TokenCache::new(4));
        let mut look_up = |token: &str, now_s| {
            let (viewer, lookup) = cache.viewer(&authenticator, &headers(&[&format!("Bearer {token}")]), now_s);
            (viewer.ok(), lookup)
        };
        let good = token(&format!(r#"{{"sub":"1","exp":{LATER}}}"#));
        assert_eq!(look_up(&good, 0), (Some(UserId(1)), Lookup::Miss));
        assert_eq!(look_up(&good, LATER - 1), (Some(UserId(1)), Lookup::Hit));
        // Expired by the caller's clock: it is verified anew, and jsonwebtoken's own clock still takes it.
        assert_eq!(look_up(&good, LATER).1, Lookup::Miss);
        // The same signature under other claims is another token.
        let forged = format!("{}.{}", BASE64.encode("{}"), good.split_once('.').unwrap().1);
        assert_eq!(look_up(&forged, 0), (None, Lookup::Miss));
        assert_eq!(look_up(&forged, 0), (None, Lookup::Miss));
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let (authenticator, mut cache) = (authenticator(), TokenCache::new(8));
        let tokens: Vec<_> =
            (0..50).map(|user| format!("Bearer {}", token(&format!(r#"{{"sub":{user},"exp":{LATER}}}"#)))).collect();
        for value in &tokens {
            let _ = cache.viewer(&authenticator, &headers(&[value]), 0);
            let (_, lookup) = cache.viewer(&authenticator, &headers(&[&tokens[0]]), 0);
            assert!(cache.len() <= 8);
            assert_eq!(lookup, Lookup::Hit);
        }
        let (_, lookup) = cache.viewer(&authenticator, &headers(&[&tokens[1]]), 0);
        assert_eq!(lookup, Lookup::Miss);
    }
}
