//! `playhead token`: prints a token for a user, signed with the server's secret.

use crate::Failure;
use crate::cli::{Token, TokenFlags};
use crate::clock::SystemClock;
use crate::config::secret_of;
use anyhow::Context;
use jsonwebtoken::{EncodingKey, Header};
use playhead_core::UserId;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Runs the command.
pub(crate) fn run(flags: &Token) -> Result<(), Failure> {
    let secret = secret_of(&flags.tokens, &flags.data_dir)?;
    println!("{}", mint(&secret, &flags.tokens, flags.user, flags.ttl)?);
    Ok(())
}

/// A token that a server with these flags takes.
pub(crate) fn mint(secret: &[u8], flags: &TokenFlags, user: UserId, ttl: Duration) -> Result<String, anyhow::Error> {
    let now_s = SystemClock.seconds();
    let mut claims = Map::new();
    claims.insert("iat".to_owned(), json!(now_s));
    claims.insert("exp".to_owned(), json!(now_s.saturating_add(ttl.as_secs())));
    for (name, value) in [("iss", &flags.jwt_issuer), ("aud", &flags.jwt_audience)] {
        if let Some(value) = value {
            claims.insert(name.to_owned(), json!(value));
        }
    }
    claims.insert(flags.user_claim.clone(), json!(user.to_string()));
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&Header::default(), &Value::Object(claims), &key).context("can't sign the token")
}
