//! The stage `cassandra` of `cargo xtask ci`: a fresh cluster, the tests that need one, and its end.
//!
//! Three nodes that sync before they acknowledge, and a fourth, alone, that wants a password, speaks TLS and syncs by
//! `group`. Both are stopped whatever comes of the tests; a run that was killed leaves nodes behind, and the next one
//! stops those first.

use super::{Cluster, Start, Sync};
use crate::packages::is_on_path;
use crate::process::{self, Deadline, cargo};
use anyhow::{Context, Result};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The whole workspace, as the stage `test` builds it: nothing is compiled a second time. Names hold the rest back.
const TESTS: [&str; 6] = ["test", "--locked", "--workspace", "--lib", "--test", "it"];

/// Runs the stage.
pub(crate) fn test(root: &Path, deadline: Deadline) -> Result<()> {
    for program in ["java", "mvn"] {
        if !is_on_path(program) {
            println!("SKIPPED: nothing was tested on Cassandra, since there is no `{program}` here");
            return Ok(());
        }
    }
    // The tests are built first: the cluster need not wait for a compiler, nor compete with it.
    process::run(cargo().current_dir(root).args(TESTS).arg("--no-run"), deadline)?;
    let (three, secure) = (Nodes::at(root, "target/ci-cassandra")?, Nodes::at(root, "target/ci-cassandra-secure")?);
    let began = Instant::now();
    let fast = |nodes, sync, yaml| Start { nodes, sync, heap_mib: 512, fast_start: true, yaml };
    three.0.start(root, &fast(3, Sync::Batch, Vec::new()))?;
    println!("three nodes were ready after {:.1} s", began.elapsed().as_secs_f64());
    let certificate = certificate(&secure)?;
    secure.0.start(root, &fast(1, Sync::Group, yaml_of_secure(&secure)))?;
    let mut tests = cargo();
    tests.current_dir(root).args(TESTS).args(["--", "cassandra"]);
    tests.env("PLAYHEAD_TEST_CASSANDRA", three.0.contact_points()?);
    tests.env("PLAYHEAD_TEST_CASSANDRA_DIR", &three.0.directory);
    tests.env("PLAYHEAD_TEST_CASSANDRA_SECURE", secure.0.contact_points()?);
    tests.env("PLAYHEAD_TEST_CASSANDRA_CA", &certificate);
    tests.env("PLAYHEAD_TEST_XTASK", env::current_exe().context("who are we?")?);
    process::run(&mut tests, deadline)
}

/// A cluster that is fresh, and is stopped in the end.
pub(crate) struct Nodes(pub(crate) Cluster);

impl Nodes {
    /// Makes and starts one.
    pub(crate) fn fresh(root: &Path, directory: &str, start: &Start) -> Result<Self> {
        let nodes = Self::at(root, directory)?;
        nodes.0.start(root, start)?;
        Ok(nodes)
    }

    fn at(root: &Path, directory: &str) -> Result<Self> {
        let directory = root.join(directory);
        let cluster = Cluster::at(&directory)?;
        cluster.stop()?;
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("can't remove {}", directory.display()))?;
        }
        fs::create_dir_all(&directory)?;
        Ok(Self(cluster))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if let Err(error) = self.0.stop() {
            eprintln!("the cluster in {} could not be stopped: {error:#}", self.0.directory.display());
        }
    }
}

const KEYSTORE: &str = "node.p12";
/// It protects a key that is made for one run and used on loopback.
const KEYSTORE_PASSWORD: &str = "loopback";

/// Makes the node's key, and gives the file with its certificate, which is its own authority.
fn certificate(nodes: &Nodes) -> Result<PathBuf> {
    let directory = &nodes.0.directory;
    let keytool = |arguments: &[&str]| {
        let mut command = Command::new("keytool");
        command.current_dir(directory).args(arguments);
        command.args(["-alias", "node", "-keystore", KEYSTORE, "-storepass", KEYSTORE_PASSWORD]);
        process::output(&mut command)
    };
    let name = format!("san=ip:{}", nodes.0.node_of(1).address);
    keytool(&[
        "-genkeypair",
        "-keyalg",
        "EC",
        "-groupname",
        "secp256r1",
        "-dname",
        "CN=node",
        "-ext",
        &name,
        "-storetype",
        "PKCS12",
        "-validity",
        "30",
    ])?;
    let file = directory.join("node.pem");
    fs::write(&file, keytool(&["-exportcert", "-rfc"])?)?;
    Ok(file)
}

fn yaml_of_secure(nodes: &Nodes) -> Vec<String> {
    let keystore = nodes.0.directory.join(KEYSTORE);
    vec![
        "authenticator: PasswordAuthenticator".to_owned(),
        // Optional, so that the tests can tell a client that speaks TLS from one that falls back.
        format!(
            "client_encryption_options: {{enabled: true, optional: true, keystore: '{}', keystore_password: \
             {KEYSTORE_PASSWORD}, store_type: PKCS12}}",
            keystore.display()
        ),
    ]
}
