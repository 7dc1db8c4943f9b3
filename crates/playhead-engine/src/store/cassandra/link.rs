//! A session that has been seen to work, with its statements prepared; and the one in use.
//!
//! The driver finds a lost node again by itself, but it waits longer each time, ten seconds in the end: an outage that
//! has passed would last that much longer for viewers. So while the cluster does not answer, [`super::watch`] tries
//! whole new links, and the first that works takes the place of the old one.

use super::connection::{Connection, connect_with};
use super::{DEADLINE, Shared, reader, scan, schema, statements};
use playhead_core::UserId;
use scylla::statement::prepared::PreparedStatement;
use std::cell::RefCell;
use std::rc::Rc;

/// See the file.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) prepared: Prepared,
}

impl Link {
    /// Connects, compares the schema, prepares, and reads once.
    pub(super) async fn establish(shared: &Shared) -> Result<Self, String> {
        let options = &shared.options;
        let connection = connect_with(options, &shared.rig).await?;
        let differences = schema::differences(&connection, options).await?;
        if !differences.is_empty() {
            return Err(differences.join("; "));
        }
        let prepared = Prepared::of(&connection, &options.keyspace).await?;
        let link = Self { connection, prepared };
        link.probe()
            .await
            .map_err(|error| format!("the cluster is there, but too few of its nodes answer: {error}"))?;
        Ok(link)
    }

    /// Reads once, at the level of all reads.
    pub(super) async fn probe(&self) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        reader::rows(self, UserId(0), None, deadline, |_| {}).await
    }
}

/// The statements, prepared.
pub(super) struct Prepared {
    pub(super) insert: PreparedStatement,
    pub(super) delete_title: PreparedStatement,
    pub(super) delete_user: PreparedStatement,
    pub(super) titles: PreparedStatement,
    pub(super) all_titles: PreparedStatement,
    pub(super) everything: PreparedStatement,
}

impl Prepared {
    pub(super) async fn of(connection: &Connection, keyspace: &str) -> Result<Self, String> {
        let texts = statements::texts(keyspace);
        let mut all_titles = connection.prepare(&texts.all_titles).await?;
        all_titles.set_page_size(reader::PAGE_ROWS);
        let mut everything = connection.prepare(&texts.everything).await?;
        everything.set_page_size(reader::PAGE_ROWS);
        everything.set_request_timeout(Some(scan::PAGE));
        // The driver asks a second node for what may be repeated and is slow: here it would only double the work.
        everything.set_is_idempotent(false);
        Ok(Self {
            insert: connection.prepare(&texts.insert).await?,
            delete_title: connection.prepare(&texts.delete_title).await?,
            delete_user: connection.prepare(&texts.delete_user).await?,
            titles: connection.prepare(&texts.titles).await?,
            all_titles,
            everything,
        })
    }
}

/// The link in use.
pub(super) struct Links(RefCell<Rc<Link>>);

impl Links {
    pub(super) fn new(link: Link) -> Self {
        Self(RefCell::new(Rc::new(link)))
    }

    pub(super) fn current(&self) -> Rc<Link> {
        Rc::clone(&self.0.borrow())
    }

    pub(super) fn replace(&self, link: Link) {
        *self.0.borrow_mut() = Rc::new(link);
    }
}
