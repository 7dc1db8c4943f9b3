//! Java, and Cassandra's jars: fetched by Maven once per version and kept in `target/cassandra-jars`.
//!
//! Maven keeps what it has fetched for all clones of a user, so a fresh clone only copies.

use crate::process::{self, Deadline};
use anyhow::{Context, Result, bail, ensure};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Of Apache Cassandra.
const VERSION: &str = "5.0.8";

const FETCHED_WITHIN: Duration = Duration::from_secs(300);

/// Parts of the names of jars that other systems need: a third of all bytes.
const OF_OTHER_SYSTEMS: [&str; 3] = ["-osx-", "-windows-", "macos"];

/// A Java that Cassandra runs on.
pub(super) fn java() -> Result<PathBuf> {
    let java = match env::var_os("JAVA_HOME") {
        Some(home) => Path::new(&home).join("bin/java"),
        None => PathBuf::from("java"),
    };
    let advice = "Cassandra needs Java 17: install openjdk-17-jre-headless, or set JAVA_HOME";
    let output = Command::new(&java).arg("-version").output().context(advice)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let major = said.split('"').nth(1).and_then(|version| version.split('.').next());
    ensure!(matches!(major, Some("11" | "17")), "{advice}; {} is another: {}", java.display(), said.trim());
    Ok(java)
}

/// The directory with the jars.
pub(super) fn fetch(root: &Path) -> Result<PathBuf> {
    let cache = root.join("target/cassandra-jars");
    let jars = cache.join(VERSION);
    if jars.is_dir() {
        return Ok(jars);
    }
    println!("fetching Apache Cassandra {VERSION} with Maven");
    fs::create_dir_all(&cache)?;
    let half = tempfile::Builder::new().prefix("half-").tempdir_in(&cache)?;
    fs::write(half.path().join("pom.xml"), project())?;
    let mut maven = Command::new("mvn");
    maven.current_dir(half.path()).args(["--quiet", "--batch-mode", "dependency:copy-dependencies"]);
    maven.args(["-DincludeScope=runtime", "-DoutputDirectory=jars"]);
    process::run(&mut maven, Deadline::after(FETCHED_WITHIN))
        .context("Maven could not fetch Cassandra; install maven, or see to its repository")?;
    let fetched = half.path().join("jars");
    for entry in fs::read_dir(&fetched)? {
        let entry = entry?;
        let name = entry.file_name();
        if OF_OTHER_SYSTEMS.iter().any(|part| name.to_string_lossy().contains(part)) {
            fs::remove_file(entry.path())?;
        }
    }
    match fs::rename(&fetched, &jars) {
        // Somebody else was quicker, and has the same.
        Err(_) if jars.is_dir() => {}
        outcome => outcome.with_context(|| format!("can't keep the jars in {}", jars.display()))?,
    }
    Ok(jars)
}

/// The jar whose name begins so.
pub(super) fn named(jars: &Path, beginning: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(jars)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(beginning) {
            return Ok(entry.path());
        }
    }
    bail!("no jar `{beginning}…` in {}: remove that directory, and it is fetched anew", jars.display())
}

fn project() -> String {
    format!(
        "<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>playhead</groupId><artifactId>cassandra-jars</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"
    )
}
