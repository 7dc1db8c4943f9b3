//! What the flags of `serve` mean together: checked before anything is touched, and turned into what the engine and the
//! server are told. Also where secrets come from.
//!
//! **The promise.** A combination that makes no sense is refused with a sentence that says what to give instead. A
//! `dev-secret` is made once, readable by its owner only, and never replaced.

use crate::Failure;
use crate::cli::{EmbeddedFlags, KeepingFlags, Serve, StoreName, ThrottleFlags, TokenFlags, VERSION};
use crate::descriptors;
use anyhow::Context;
use playhead_core::Rules;
use playhead_engine::store::embedded::{EmbeddedOptions, check_directory};
use playhead_engine::{Limits, StoreChoice};
use playhead_server::{
    Authenticator, Claims, Deadlines, ExportToken, Options, Origins, Rate, SECRET_BYTES_MIN, ThrottleLimits,
};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What `serve` is to do.
pub(crate) struct Config {
    pub(crate) store: StoreChoice,
    pub(crate) limits: Limits,
    pub(crate) server: Options,
    /// With `--dev`: what signs the token that is printed.
    pub(crate) dev_secret: Option<Vec<u8>>,
}

impl Config {
    /// Checks the flags, and the secret if they name one; touches nothing.
    pub(crate) fn check(flags: &Serve) -> Result<(), Failure> {
        check(flags)?;
        origins(flags)?;
        export_token(flags)?;
        embedded_options(&flags.data_dir, &flags.keeping, &flags.embedded)
            .check()
            .map_err(|error| Failure::usage(error.to_string()))?;
        #[cfg(feature = "cassandra")]
        if flags.store == StoreName::Cassandra {
            flags.cassandra.options(&flags.keeping)?;
        }
        flags.tokens.jwt_secret_file.as_deref().map_or(Ok(()), |file| read_secret(file).map(drop))
    }

    /// Checks the flags and reads or makes the secret.
    pub(crate) fn of(flags: Serve) -> Result<Self, Failure> {
        Self::check(&flags)?;
        let origins = origins(&flags)?;
        let workers = match flags.workers {
            Some(workers) => usize::from(workers),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let secret = match &flags.tokens.jwt_secret_file {
            Some(file) => read_secret(file)?,
            None => {
                if flags.store == StoreName::Embedded {
                    // A directory that is not ours is refused before a secret is left in it.
                    check_directory(&flags.data_dir)?;
                }
                make_dev_secret(&flags.data_dir)?
            }
        };
        let authenticator = Authenticator::hs256(&secret, claims(&flags.tokens))?;
        let store = match flags.store {
            StoreName::Embedded => {
                StoreChoice::Embedded(embedded_options(&flags.data_dir, &flags.keeping, &flags.embedded))
            }
            #[cfg(feature = "cassandra")]
            StoreName::Cassandra => StoreChoice::Cassandra(Box::new(flags.cassandra.options(&flags.keeping)?)),
            StoreName::Memory => StoreChoice::Memory { retention: flags.keeping.retention.0 },
            StoreName::Discard => StoreChoice::Discard,
        };
        let limits = Limits {
            lane_writes: flags.limits.max_in_flight_writes.div_ceil(workers),
            ack_deadline: flags.limits.ack_deadline,
            ..Limits::default()
        };
        let deadlines = Deadlines {
            request: flags.limits.request_deadline,
            // The store's part, then the client's to take the answer.
            answer: flags.limits.ack_deadline + flags.limits.request_deadline,
            idle: flags.limits.idle_timeout,
        };
        let server = Options {
            listen: flags.listen,
            admin_listen: flags.admin_listen,
            export_token: export_token(&flags)?,
            workers,
            connections_max: flags.limits.max_connections.min(descriptors::left_for_connections()),
            authenticator,
            tokens_remembered: flags.limits.tokens_remembered,
            max_item_age: flags.keeping.max_item_age,
            origins,
            demo: None,
            rules: Rules { completed_at: flags.completed_at },
            deadlines,
            throttles: throttles(&flags.throttles),
            beat_interval: flags.beat_interval.0,
            shutdown_delay: flags.shutdown_delay,
            drain_deadline: flags.drain_deadline,
            is_dev: flags.dev,
            version: VERSION,
        };
        Ok(Self { store, limits, server, dev_secret: flags.dev.then_some(secret) })
    }
}

fn check(flags: &Serve) -> Result<(), Failure> {
    let is_loopback = flags.listen.ip().is_loopback() && flags.admin_listen.ip().is_loopback();
    let has_key = flags.tokens.jwt_secret_file.is_some();
    let complaint = match flags.dev {
        true if has_key => "--dev makes its own secret: leave out --jwt-secret-file, or leave out --dev",
        true if !is_loopback && !flags.dev_allow_remote => {
            "--dev listens on loopback only, since anyone may read its secret's tokens: use a loopback address, or add --dev-allow-remote"
        }
        false if matches!(flags.store, StoreName::Memory | StoreName::Discard) => {
            "this store keeps nothing: use --store embedded, or add --dev to try it out"
        }
        false if !has_key => {
            "no key to check tokens with: give --jwt-secret-file FILE (HS256, 32 bytes or more), or --dev to try it out"
        }
        _ => return Ok(()),
    };
    Err(Failure::usage(complaint))
}

/// Whose web pages may call.
fn origins(flags: &Serve) -> Result<Option<Origins>, Failure> {
    let given = &flags.cors_origins;
    match given.iter().any(|origin| origin == "*") {
        true if !flags.dev => {
            Err(Failure::usage("--cors-origin '*' is for trying it out: name the origins, or add --dev"))
        }
        true if given.len() > 1 => Err(Failure::usage("--cors-origin '*' means any origin: give it alone")),
        true => Ok(Some(Origins::all())),
        false if given.is_empty() => Ok(None),
        false => Origins::exactly(given).map(Some).map_err(|error| Failure::usage(format!("--cors-origin: {error}"))),
    }
}

fn claims(flags: &TokenFlags) -> Claims {
    Claims { issuer: flags.jwt_issuer.clone(), audience: flags.jwt_audience.clone(), user: flags.user_claim.clone() }
}

/// Who may export.
fn export_token(flags: &Serve) -> Result<Option<ExportToken>, Failure> {
    let Some(file) = &flags.admin_token_file else { return Ok(None) };
    let token = read_admin_token(file)?;
    let complaint = |error| format!("--admin-token-file {}: {error}", file.display());
    Ok(Some(ExportToken::of(&token).map_err(|error| anyhow::anyhow!(complaint(error)))?))
}

/// The token in this file; a newline at its end is not part of it.
pub(crate) fn read_admin_token(file: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable =
        || format!("can't read --admin-token-file {}: give a file that this user may read", file.display());
    let mut token = fs::read(file).with_context(unreadable)?;
    for ending in [b'\n', b'\r'] {
        token.pop_if(|last| *last == ending);
    }
    Ok(token)
}

/// How the embedded store in this directory is opened.
pub(crate) fn embedded_options(directory: &Path, keeping: &KeepingFlags, flags: &EmbeddedFlags) -> EmbeddedOptions {
    let KeepingFlags { retention, max_item_age, commit_window } = *keeping;
    let EmbeddedFlags { segment_bytes, freeze_bytes, memtable_bytes, disk_reserve_bytes, block_cache_bytes } = *flags;
    EmbeddedOptions {
        directory: directory.to_owned(),
        retention: retention.0,
        max_item_age,
        segment_bytes,
        freeze_bytes,
        memtable_bytes,
        disk_reserve_bytes,
        block_cache_bytes,
        commit_window,
    }
}

fn throttles(flags: &ThrottleFlags) -> ThrottleLimits {
    let rate = |per_second, burst| Rate { per_second, burst };
    ThrottleLimits {
        requests: rate(flags.throttle_per_second, flags.throttle_burst),
        deletions: rate(flags.delete_throttle_per_second, flags.delete_throttle_burst),
    }
}

/// Where `--dev` keeps its secret.
fn dev_secret_file(data_dir: &Path) -> PathBuf {
    data_dir.join("dev-secret")
}

/// The secret of a server, for who mints tokens beside it.
pub(crate) fn secret_of(tokens: &TokenFlags, data_dir: &Path) -> Result<Vec<u8>, Failure> {
    match &tokens.jwt_secret_file {
        Some(file) => read_secret(file),
        None => read_secret(&dev_secret_file(data_dir)),
    }
}

fn read_secret(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut secret = fs::read(file)
        .with_context(|| format!("can't read the secret in {}: give a file that this user may read", file.display()))?;
    for ending in [b'\n', b'\r'] {
        secret.pop_if(|last| *last == ending);
    }
    if secret.len() < SECRET_BYTES_MIN {
        return Err(anyhow::anyhow!(
            "the secret in {} has {} bytes: it needs {SECRET_BYTES_MIN} or more; `openssl rand -hex 32` makes one",
            file.display(),
            secret.len()
        )
        .into());
    }
    Ok(secret)
}

fn make_dev_secret(data_dir: &Path) -> Result<Vec<u8>, Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).with_context(|| {
        format!("can't make the data directory {}: give another with --data-dir", data_dir.display())
    })?;
    let file = dev_secret_file(data_dir);
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("the system has no random bytes for a secret")?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file) {
        Ok(mut secret) => secret
            .write_all(format!("{text}\n").as_bytes())
            .with_context(|| format!("can't write the secret to {}", file.display()))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => {
            let message = format!("can't make {}: give a writable directory with --data-dir", file.display());
            return Err(anyhow::Error::new(error).context(message).into());
        }
    }
    read_secret(&file)
}
