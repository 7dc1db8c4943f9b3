//! Fills a data directory with rows, through the log and the drains as a server would, for `cargo xtask bench base`.
//!
//! Run as `fill DIRECTORY USERS TITLES`: users 1 to USERS have titles 1 to TITLES each. Titles are written one after the
//! other over all users, so that each drain touches all of the key space, as heartbeats do.

use playhead_core::{Change, Clock, MediaDuration, MovieId, Position, UserId, Write, WriteTime};
use playhead_engine::store::embedded::EmbeddedOptions;
use playhead_engine::{Engine, Limits, StoreChoice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// Writes of one commit.
const GROUP: i64 = 500;

/// Commits under way.
const IN_FLIGHT: usize = 64;

/// Counts on: the rows' times matter only by their order.
struct Counter(AtomicU64);

impl Clock for Counter {
    fn now(&self) -> WriteTime {
        WriteTime::from_micros(1_700_000_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, users, titles] = &arguments[..] else { return Err("usage: fill DIRECTORY USERS TITLES".into()) };
    let (users, titles): (i64, i64) = (users.parse()?, titles.parse()?);
    let options = EmbeddedOptions::at(directory);
    let engine = Engine::open(StoreChoice::Embedded(options), Arc::new(Counter(AtomicU64::new(0))), Limits::default())?;
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let started = Instant::now();
    runtime.block_on(async {
        let mut under_way = JoinSet::new();
        for title in 1..=titles {
            for first in (1..=users).step_by(usize::try_from(GROUP)?) {
                let row = |user| Write {
                    user: UserId(user),
                    change: Change::Put {
                        movie: MovieId(title),
                        position: Position::from_seconds(1.0 + f64::from(u16::try_from(user % 7_000).unwrap_or(0)))
                            .unwrap_or(Position::ZERO),
                        duration: MediaDuration::from_seconds(7_200.0).ok(),
                    },
                };
                let writes: Vec<Write> = (first..(first + GROUP).min(users + 1)).map(row).collect();
                if under_way.len() >= IN_FLIGHT
                    && let Some(ended) = under_way.join_next().await
                {
                    ended??;
                }
                let handle = engine.handle();
                under_way.spawn(async move {
                    // Full for a moment: the drain is behind.
                    let mut outcome = handle.commit(writes.clone()).await;
                    while outcome.is_err() {
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        outcome = handle.commit(writes.clone()).await;
                    }
                    outcome
                });
            }
            println!("{} rows, {:.0} s", title * users, started.elapsed().as_secs_f64());
        }
        while let Some(ended) = under_way.join_next().await {
            ended??;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    engine.close()?;
    Ok(())
}
