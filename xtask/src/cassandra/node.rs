//! One node: its files, its process, and whether it is ready.
//!
//! The process is started in a process group of its own, so that Ctrl-C in the terminal that started it does not end
//! it. It is known by its id and the time of its start, which the kernel gives, both kept in the file `process`.

use super::cql::{self, Rows};
use super::jars;
use super::{Start, Sync};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where nodes speak CQL.
pub(crate) const PORT: u16 = 9042;
/// Where nodes speak to each other.
const STORAGE_PORT: u16 = 7000;

/// How long a probe waits for its answer.
const PROBE: Duration = Duration::from_secs(2);

/// Packages of the JDK that Cassandra reaches into; its own start scripts list the same.
const EXPORTS: &[&str] = &[
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/java.lang.ref",
    "java.sql/java.sql",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "jdk.unsupported/sun.misc",
];
const OPENS: &[&str] = &[
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.math",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/sun.nio.ch",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.rmi/sun.rmi.transport.tcp",
    "jdk.management/com.sun.management.internal",
];

/// One node of a cluster.
#[derive(Debug)]
pub(crate) struct Node {
    pub(super) directory: PathBuf,
    pub(super) number: u8,
    pub(super) address: Ipv4Addr,
}

/// What its files are made of.
pub(super) struct Settings<'a> {
    pub(super) start: &'a Start,
    pub(super) jars: &'a Path,
    /// Every node is a seed: then all may start at once.
    pub(super) seeds: &'a [String],
    /// The cluster's directory, which is also its name: nodes of another cluster are then never taken in.
    pub(super) cluster: &'a Path,
}

impl Node {
    pub(super) fn at(directory: PathBuf, number: u8, address: Ipv4Addr) -> Self {
        Self { directory, number, address }
    }

    pub(super) fn exists(&self) -> bool {
        self.file("java.args").exists()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes its configuration.
    pub(super) fn configure(&self, settings: &Settings<'_>) -> Result<()> {
        for name in ["log", "triggers"] {
            fs::create_dir_all(self.file(name))?;
        }
        fs::write(self.file("cassandra.yaml"), self.yaml(settings))?;
        fs::write(self.file("logback.xml"), self.logback())?;
        fs::write(self.file("java.args"), self.arguments(settings)?)?;
        Ok(())
    }

    fn yaml(&self, settings: &Settings<'_>) -> String {
        let Settings { start, seeds, cluster, .. } = settings;
        let share = u64::MAX / u64::from(start.nodes);
        let token = i64::MIN.wrapping_add_unsigned(share * u64::from(self.number - 1));
        let sync = match start.sync {
            Sync::Periodic => "commitlog_sync: periodic\ncommitlog_sync_period: 10000ms",
            Sync::Group => "commitlog_sync: group\ncommitlog_sync_group_window: 5ms",
            Sync::Batch => "commitlog_sync: batch",
        };
        format!(
            "cluster_name: '{cluster}'
num_tokens: 1
initial_token: '{token}'
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: '{seeds}'}}]
listen_address: {address}
rpc_address: {address}
storage_port: {STORAGE_PORT}
native_transport_port: {PORT}
{sync}
commitlog_segment_size: 8MiB
commit_failure_policy: die
disk_failure_policy: die
concurrent_reads: 16
concurrent_writes: 16
concurrent_counter_writes: 2
concurrent_compactors: 1
auto_snapshot: false
crypto_provider: [{{class_name: org.apache.cassandra.security.JREProvider}}]
{extra}
",
            cluster = cluster.display(),
            seeds = seeds.join(","),
            address = self.address,
            extra = start.yaml.join("\n"),
        )
    }

    fn logback(&self) -> String {
        format!(
            "<configuration>
  <appender name='file' class='ch.qos.logback.core.FileAppender'>
    <file>{}</file>
    <encoder><pattern>%-5level %d{{HH:mm:ss.SSS}} [%thread] %logger{{0}}: %msg%n</pattern></encoder>
  </appender>
  <root level='WARN'><appender-ref ref='file'/></root>
  <logger name='org.apache.cassandra' level='INFO'/>
</configuration>
",
            self.file("log/system.log").display()
        )
    }

    fn arguments(&self, settings: &Settings<'_>) -> Result<String> {
        let Settings { start, jars, .. } = settings;
        let heap = start.heap_mib;
        let agent = jars::named(jars, "jamm-")?;
        // The simplest collector: a small heap on a machine with few cores.
        let mut arguments = vec![
            format!("-Xms{heap}m"),
            format!("-Xmx{heap}m"),
            format!("-XX:MaxDirectMemorySize={}m", heap / 2),
            "-XX:+UseSerialGC".to_owned(),
            "-XX:+ExitOnOutOfMemoryError".to_owned(),
            format!("-XX:TieredStopAtLevel={}", if start.fast_start { 1 } else { 4 }),
            "-Djava.security.manager=allow".to_owned(),
            "-Djdk.attach.allowAttachSelf=true".to_owned(),
            "-Djava.net.preferIPv4Stack=true".to_owned(),
            "-Dio.netty.tryReflectionSetAccessible=true".to_owned(),
            format!("-javaagent:{}", quoted(&agent.to_string_lossy())),
        ];
        arguments.extend(EXPORTS.iter().map(|package| format!("--add-exports={package}=ALL-UNNAMED")));
        arguments.extend(OPENS.iter().map(|package| format!("--add-opens={package}=ALL-UNNAMED")));
        let path = |name: &str| self.file(name).display().to_string();
        let copies = start.nodes.min(3);
        // What waits for the gossip of a real network need not wait here.
        let properties = [
            ("cassandra.config", format!("file://{}", path("cassandra.yaml"))),
            ("cassandra.storagedir", self.directory.display().to_string()),
            ("cassandra.logdir", path("log")),
            ("cassandra.triggers_dir", path("triggers")),
            ("logback.configurationFile", format!("file://{}", path("logback.xml"))),
            ("cassandra-foreground", "yes".to_owned()),
            ("cassandra.libjemalloc", "-".to_owned()),
            ("cassandra.skip_wait_for_gossip_to_settle", "0".to_owned()),
            ("cassandra.ring_delay_ms", if start.nodes == 1 { "1" } else { "5000" }.to_owned()),
            ("cassandra.superuser_setup_delay_ms", "0".to_owned()),
            ("cassandra.shutdown_announce_in_ms", "0".to_owned()),
            ("cassandra.system_distributed.default_rf", copies.to_string()),
            ("cassandra.system_traces.default_rf", copies.min(2).to_string()),
        ];
        arguments.extend(properties.iter().map(|(name, value)| format!("-D{name}={}", quoted(value))));
        arguments.push(format!("-cp {}", quoted(&format!("{}/*", jars.display()))));
        arguments.push("org.apache.cassandra.service.CassandraDaemon".to_owned());
        Ok(arguments.join("\n") + "\n")
    }

    /// Starts its process, unless it runs.
    pub(super) fn launch(&self, java: &Path) -> Result<()> {
        if self.process().is_some() {
            return Ok(());
        }
        for port in [PORT, STORAGE_PORT] {
            let address = SocketAddrV4::new(self.address, port);
            TcpListener::bind(address).with_context(|| format!("node {}: {address} is taken", self.number))?;
        }
        let output = File::create(self.file("log/output.log"))?;
        let child = Command::new(java)
            .arg(format!("@{}", self.file("java.args").display()))
            .current_dir(&self.directory)
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't start {}", java.display()))?;
        let id = child.id();
        let started = started_at(id).with_context(|| format!("node {} ended at once", self.number))?;
        fs::write(self.file("process"), format!("{id} {started}"))?;
        Ok(())
    }

    /// The id of its process, if that runs.
    pub(super) fn process(&self) -> Option<u32> {
        let known = fs::read_to_string(self.file("process")).ok()?;
        let (id, started) = known.split_once(' ')?;
        let id = id.parse().ok()?;
        (started_at(id)? == started).then_some(id)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let Some(id) = self.process() else { bail!("node {} is not running", self.number) };
        let pid = Pid::from_raw(i32::try_from(id)?).context("process ids are positive")?;
        kill_process(pid, signal).with_context(|| format!("can't signal node {}", self.number))
    }

    /// Whether it answers, knows all others, and agrees with them on the schema.
    pub(super) fn is_ready(&self, cluster_size: usize) -> bool {
        let known = || -> Result<bool> {
            let mine = self.query("SELECT schema_version FROM system.local", PROBE)?;
            let peers = self.query("SELECT schema_version FROM system.peers_v2", PROBE)?;
            Ok(peers.len() == cluster_size - 1 && peers.iter().all(|version| Some(version) == mine.first()))
        };
        // A node that wants a password has answered; it stands alone in tests of passwords.
        known().unwrap_or_else(|error| cluster_size == 1 && error.is::<cql::WantsPassword>())
    }

    pub(super) fn query(&self, statement: &str, timeout: Duration) -> Result<Rows> {
        cql::query(SocketAddrV4::new(self.address, PORT), statement, timeout)
    }

    /// What its logs say of its end.
    pub(super) fn last_words(&self) -> String {
        let mut words = Vec::new();
        for name in ["log/system.log", "log/output.log"] {
            let text = fs::read(self.file(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let bad = text
                .lines()
                .filter(|line| ["ERROR", "Exception", "Caused", "Error"].iter().any(|word| line.starts_with(word)));
            words.extend(bad.map(str::to_owned));
        }
        let from = words.len().saturating_sub(6);
        format!("see {}\n{}", self.file("log").display(), words[from..].join("\n"))
    }
}

/// In quotes, as Java's argument files want what may hold a space.
fn quoted(value: &str) -> String {
    format!("\"{value}\"")
}

/// When a process was started, by the kernel's count; `None` if there is none, or only its remains.
fn started_at(id: u32) -> Option<String> {
    started_of(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

fn started_of(stat: &str) -> Option<String> {
    // Behind the name, which may hold anything: of the state and the fields that follow it, that of the threads and that
    // of the start.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let (state, threads, started) = (*fields.first()?, *fields.get(17)?, *fields.get(19)?);
    // After a kill the first thread may be gone while others still wait for the disk, and hold all that was open.
    let is_gone = state == "Z" && threads.parse::<u32>().is_ok_and(|threads| threads <= 1);
    (!is_gone).then(|| started.to_owned())
}

/// Between two looks at a process that tells nobody when it is ready.
#[expect(clippy::disallowed_methods, reason = "a node tells nobody when it is ready or gone: it has to be looked at")]
pub(super) fn wait_a_little() {
    std::thread::sleep(Duration::from_millis(100));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_the_time_of_its_start() {
        let own = std::process::id();
        assert_eq!(started_at(own), started_at(own));
        assert!(started_at(own).unwrap().parse::<u64>().is_ok());
        assert_eq!(started_at(u32::MAX), None);
    }

    #[test]
    fn a_process_is_gone_once_its_last_thread_is() {
        let stat = |state: &str, threads: u32| {
            format!(
                "7 (a) b) {state} 1 7 7 0 -1 4194304 1 0 0 0 1 1 0 0 20 0 {threads} 0 4711 0 0 18446744073709551615"
            )
        };
        assert_eq!(started_of(&stat("S", 40)).as_deref(), Some("4711"));
        assert_eq!(started_of(&stat("Z", 3)).as_deref(), Some("4711"));
        assert_eq!(started_of(&stat("Z", 1)), None);
    }
}
