//! Which store `export` and `import` work on: said by the keys of `serve`, so that its file of settings (`--config`) is
//! enough.

use crate::Failure;
use crate::cli::{EmbeddedFlags, KeepingFlags, StoreName};
use crate::config::embedded_options;
use clap::Args;
#[cfg(feature = "cassandra")]
use playhead_engine::Health;
#[cfg(feature = "cassandra")]
use playhead_engine::Store;
#[cfg(feature = "cassandra")]
use playhead_engine::store::cassandra::Cassandra;
use playhead_engine::store::embedded::EmbeddedOptions;
use std::path::PathBuf;
#[cfg(feature = "cassandra")]
use std::{sync::Arc, time::Duration, time::Instant};

/// How long a cluster may take to be usable.
#[cfg(feature = "cassandra")]
const CLUSTER_PATIENCE: Duration = Duration::from_secs(30);

/// A store.
#[derive(Debug, Args)]
pub(crate) struct PlaceFlags {
    /// The data directory of a server that is stopped
    #[arg(long, env = "PLAYHEAD_DATA_DIR", value_name = "DIRECTORY", default_value = "./playhead-data")]
    pub(crate) data_dir: PathBuf,
    /// What keeps positions: embedded or cassandra
    #[arg(long, env = "PLAYHEAD_STORE", default_value = "embedded")]
    pub(crate) store: StoreName,
    #[command(flatten)]
    pub(crate) keeping: KeepingFlags,
    #[command(flatten)]
    pub(crate) embedded: EmbeddedFlags,
    #[cfg(feature = "cassandra")]
    #[command(flatten)]
    pub(crate) cassandra: crate::cassandra::CassandraFlags,
}

/// A store that outlives its process.
pub(crate) enum Place {
    Directory(EmbeddedOptions),
    #[cfg(feature = "cassandra")]
    Cluster(Cassandra),
}

impl PlaceFlags {
    /// Checks the flags; waits for a cluster until it can be used.
    pub(crate) fn open(&self) -> Result<Place, Failure> {
        match self.store {
            StoreName::Embedded => {
                let options = embedded_options(&self.data_dir, &self.keeping, &self.embedded);
                options.check().map_err(|error| Failure::usage(error.to_string()))?;
                Ok(Place::Directory(options))
            }
            #[cfg(feature = "cassandra")]
            StoreName::Cassandra => Ok(Place::Cluster(connect(self.cassandra.options(&self.keeping)?)?)),
            StoreName::Memory | StoreName::Discard => Err(Failure::usage(
                "this store keeps nothing beyond its process: give --store embedded or --store cassandra",
            )),
        }
    }
}

#[cfg(feature = "cassandra")]
fn connect(options: playhead_engine::store::cassandra::CassandraOptions) -> Result<Cassandra, Failure> {
    let store = Cassandra::open(options, Arc::new(crate::clock::SystemClock))?;
    let deadline = Instant::now() + CLUSTER_PATIENCE;
    loop {
        match store.condition().health() {
            Health::Ready | Health::Degraded(_) => return Ok(store),
            Health::Failed(reason) => return Err(anyhow::Error::msg(reason).into()),
            Health::Unready(reason) if Instant::now() >= deadline => {
                return Err(anyhow::anyhow!("the cluster can't be used: {reason}").into());
            }
            // The store goes on trying.
            Health::Unready(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}
