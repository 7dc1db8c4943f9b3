//! The session: how the cluster is reached, what is asked of one node, and errors as sentences.
//!
//! **What a session is told.** Statements are idempotent, since their write time is bound by us: the driver may repeat
//! them on another node. If a node is silent for [`SPECULATION`], the next one is asked as well, and the first answer
//! counts. Keep-alives find a hanging node within seconds. Nodes of other data centres are left out, if one is named.

use super::{CassandraOptions, Consistency, Rig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::cluster::{ClusterState, Node};
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::NewSessionError;
use scylla::policies::load_balancing::{
    DefaultPolicy, LoadBalancingPolicy, NodeIdentifier, SingleTargetLoadBalancingPolicy,
};
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// A node that has not answered by then is not waited for alone.
const SPECULATION: Duration = Duration::from_millis(400);

/// Until a node takes a connection.
const CONNECT: Duration = Duration::from_millis(1_500);

/// Between two signs of life of an idle connection, and how long to wait for one.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// What one node is asked about itself.
const ASK: Duration = Duration::from_secs(1);

/// A change of the schema takes its time.
const CHANGE: Duration = Duration::from_secs(30);

/// A session and where it leads.
pub(super) struct Connection {
    pub(super) session: Session,
    data_center: Option<String>,
    /// Who is asked first when no node is named.
    pub(super) policy: Arc<dyn LoadBalancingPolicy>,
}

/// Connects.
pub(super) async fn connect(options: &CassandraOptions) -> Result<Connection, String> {
    connect_with(options, &Rig::default()).await
}

/// Connects, by the detours of a test.
pub(super) async fn connect_with(options: &CassandraOptions, rig: &Rig) -> Result<Connection, String> {
    let mut policy = DefaultPolicy::builder().token_aware(true);
    if let Some(data_center) = &options.data_center {
        policy = policy.prefer_datacenter(data_center.clone());
    }
    let policy = policy.build();
    let profile = ExecutionProfile::builder()
        .consistency(match options.consistency {
            Consistency::LocalQuorum => scylla::statement::Consistency::LocalQuorum,
            Consistency::Quorum => scylla::statement::Consistency::Quorum,
            Consistency::All => scylla::statement::Consistency::All,
        })
        .request_timeout(Some(rig.deadline))
        .load_balancing_policy(Arc::clone(&policy))
        .speculative_execution_policy(Some(Arc::new(SimpleSpeculativeExecutionPolicy {
            max_retry_count: 1,
            retry_interval: SPECULATION,
        })))
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&options.nodes)
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(CONNECT)
        .keepalive_interval(KEEP_ALIVE)
        .keepalive_timeout(KEEP_ALIVE)
        .tcp_nodelay(true)
        .keyspaces_to_fetch([&options.keyspace])
        .tls_context(tls(options)?);
    if let Some(credentials) = &options.credentials {
        builder = builder.user(&credentials.user, &credentials.password);
    }
    if let Some(detours) = &rig.detours {
        builder = builder.address_translator(Arc::new(detours.clone()));
    }
    let session = builder.build().await.map_err(|error| not_connected(options, &error))?;
    Ok(Connection { session, data_center: options.data_center.clone(), policy })
}

/// TLS, if it is wanted.
pub(super) fn tls(options: &CassandraOptions) -> Result<Option<Arc<ClientConfig>>, String> {
    let Some(pem) = &options.authorities else { return Ok(None) };
    let complaint = "--cassandra-tls-ca-file: give a PEM file with the certificates of the authorities to trust";
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|der| roots.add(der).map_err(|error| error.to_string()));
        added.map_err(|error| format!("{complaint}: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("{complaint}: there is none in it"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| format!("TLS can't be used: {error}"))?;
    Ok(Some(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

/// Why there is no session, and which setting to look at.
fn not_connected(options: &CassandraOptions, error: &NewSessionError) -> String {
    let text = chain(error);
    let nodes = options.nodes.join(", ");
    if matches!(error, NewSessionError::FailedToResolveAnyHostname(_)) {
        return format!("the names of {nodes} lead nowhere: see to --cassandra-nodes");
    }
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["credentials", "Authentication", "authentication", "Unauthorized", "username"]) {
        return match &options.credentials {
            Some(_) => {
                format!("the cluster refuses the user: see to --cassandra-user and --cassandra-password-file ({text})")
            }
            None => format!("the cluster wants a user: give --cassandra-user and --cassandra-password-file ({text})"),
        };
    }
    if says(&["certificate", "Certificate", "TLS", "tls", "InvalidMessage"]) {
        return format!("no TLS with {nodes}: see to --cassandra-tls-ca-file ({text})");
    }
    format!("no node of {nodes} can be used: see to --cassandra-nodes and to the cluster ({text})")
}

/// An error and its causes, each once: many of the driver's show their cause themselves.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

impl Connection {
    /// The cluster as it is known now.
    pub(super) fn cluster(&self) -> Arc<ClusterState> {
        self.session.get_cluster_state()
    }

    /// Whether a node is one of those that may be asked, and can be.
    pub(super) fn is_usable(&self, node: &Node) -> bool {
        node.is_connected() && (self.data_center.is_none() || node.datacenter == self.data_center)
    }

    /// The nodes that may be asked, and can be.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.cluster().get_nodes_info().iter().filter(|node| self.is_usable(node)).cloned().collect()
    }

    /// Asks one node about itself.
    pub(super) async fn ask<T>(&self, node: &Arc<Node>, text: &str) -> Result<T, String>
    where
        T: for<'r> DeserializeRow<'r, 'r>,
    {
        let mut statement = Statement::new(text);
        statement.set_load_balancing_policy(Some(SingleTargetLoadBalancingPolicy::new(
            NodeIdentifier::Node(Arc::clone(node)),
            None,
        )));
        statement.set_consistency(scylla::statement::Consistency::One);
        statement.set_is_idempotent(true);
        statement.set_request_timeout(Some(ASK));
        let mut rows = self.rows_of(statement, ()).await?;
        rows.pop().ok_or_else(|| "the node says nothing".to_owned())
    }

    /// Asks any node about what all know.
    pub(super) async fn rows<T>(&self, text: &str, values: impl SerializeRow) -> Result<Vec<T>, String>
    where
        T: for<'r> DeserializeRow<'r, 'r>,
    {
        let mut statement = Statement::new(text);
        statement.set_consistency(scylla::statement::Consistency::One);
        statement.set_is_idempotent(true);
        self.rows_of(statement, values).await
    }

    async fn rows_of<T>(&self, statement: Statement, values: impl SerializeRow) -> Result<Vec<T>, String>
    where
        T: for<'r> DeserializeRow<'r, 'r>,
    {
        let result = self.session.query_unpaged(statement, values).await.map_err(|error| chain(&error))?;
        let rows = result.into_rows_result().map_err(|error| chain(&error))?;
        let rows = rows.rows::<T>().map_err(|error| chain(&error))?;
        rows.collect::<Result<Vec<_>, _>>().map_err(|error| chain(&error))
    }

    /// Changes the schema.
    pub(super) async fn change(&self, text: &str) -> Result<(), String> {
        let mut statement = Statement::new(text);
        statement.set_request_timeout(Some(CHANGE));
        let changed = self.session.query_unpaged(statement, ()).await;
        changed.map_err(|error| format!("the cluster refuses `{text}`: {}", chain(&error)))?;
        // What was there already may be so new that not every node knows it.
        let agreed = self.session.await_schema_agreement().await;
        agreed.map(drop).map_err(|error| format!("the nodes do not agree on `{text}`: {}", chain(&error)))
    }

    /// The data centre of the node that answers first.
    pub(super) async fn data_center(&self) -> Result<String, String> {
        let mut rows = self.rows::<(String,)>(super::statements::LOCAL_DATA_CENTER, ()).await?;
        rows.pop()
            .map(|(name,)| name)
            .ok_or_else(|| "no node names its data centre: give --cassandra-data-center".to_owned())
    }

    /// Whether this is ScyllaDB.
    pub(super) async fn is_scylla(&self) -> bool {
        self.rows::<(Option<String>,)>(super::statements::COMMITLOG_SYNC_SCYLLA, ()).await.is_ok()
    }

    /// Prepares a statement that may be repeated.
    pub(super) async fn prepare(&self, text: &str) -> Result<PreparedStatement, String> {
        let mut prepared = self.session.prepare(text).await.map_err(|error| chain(&error))?;
        prepared.set_is_idempotent(true);
        Ok(prepared)
    }
}
