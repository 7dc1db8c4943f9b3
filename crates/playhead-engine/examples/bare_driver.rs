//! The floor that `--store cassandra` is measured against: the driver alone, for `cargo xtask bench cassandra`.
//!
//! One session on one current-thread runtime, and DEPTH tasks that each write a row, wait for the acknowledgement and
//! write the next: the statement, the consistency and the write times of the service, and nothing else of it. Run as
//! `bare_driver NODES KEYSPACE USERS TITLES DEPTH SECONDS RATE`: rows go round over users 1 to USERS, then titles 1 to
//! TITLES; at RATE rows a second, each at its time and its latency counted from then, or as fast as they are acknowledged
//! if that is 0. Prints what it saw as one line of JSON.

use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

struct Writer {
    session: Session,
    insert: PreparedStatement,
    users: i64,
    titles: i64,
    rows: Cell<i64>,
    last_write_time: Cell<i64>,
    micros: RefCell<Vec<u32>>,
    began: Instant,
    until: Instant,
    /// Rows a second; 0 for as many as can be.
    rate: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [nodes, keyspace, users, titles, depth, seconds, rate] = &arguments[..] else {
        return Err("usage: bare_driver NODES KEYSPACE USERS TITLES DEPTH SECONDS RATE".into());
    };
    let (users, titles, depth): (i64, i64, u32) = (users.parse()?, titles.parse()?, depth.parse()?);
    let rate: f64 = rate.parse()?;
    let lasts = Duration::from_secs(seconds.parse()?);
    let nodes: Vec<&str> = nodes.split(',').collect();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let profile = ExecutionProfile::builder().consistency(Consistency::LocalQuorum).build();
        let builder = SessionBuilder::new().known_nodes(&nodes).default_execution_profile_handle(profile.into_handle());
        let session = builder.tcp_nodelay(true).build().await?;
        let text = format!(
            "INSERT INTO {keyspace}.resume_positions (user_id, movie_id, position_seconds, duration_seconds) \
             VALUES (?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?"
        );
        let mut insert = session.prepare(text).await?;
        insert.set_is_idempotent(true);
        let (rows, last_write_time, micros) = (Cell::new(0), Cell::new(0), RefCell::default());
        let (began, cpu_ticks) = (Instant::now(), ticks()?);
        let until = began + lasts;
        let writer =
            Rc::new(Writer { session, insert, users, titles, rows, last_write_time, micros, began, until, rate });
        let tasks: Vec<_> = (0..depth).map(|_| tokio::task::spawn_local(write(Rc::clone(&writer)))).collect();
        for task in tasks {
            task.await??;
        }
        let (seconds, cpu_ticks) = (began.elapsed().as_secs_f64(), ticks()? - cpu_ticks);
        let mut micros = writer.micros.take();
        micros.sort_unstable();
        let at =
            |share: usize| micros.get(micros.len() * share / 100).map_or(0.0, |micros| f64::from(*micros) / 1_000.0);
        println!(
            "{{\"rows\":{},\"seconds\":{seconds:.3},\"cpu_s\":{:.2},\"p50_ms\":{:.3},\"p99_ms\":{:.3}}}",
            micros.len(),
            cpu_ticks as f64 / 100.0,
            at(50),
            at(99)
        );
        Ok(())
    })
}

async fn write(writer: Rc<Writer>) -> Result<(), scylla::errors::ExecutionError> {
    while Instant::now() < writer.until {
        let row = writer.rows.replace(writer.rows.get() + 1);
        let mut began = Instant::now();
        if writer.rate > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "a bench's rows are far fewer than 2^52")]
            let due = writer.began + Duration::from_secs_f64(row as f64 / writer.rate);
            tokio::time::sleep_until(due.into()).await;
            began = due;
        }
        let (user, movie) = (1 + row % writer.users, 1 + row / writer.users % writer.titles);
        #[expect(clippy::disallowed_methods, reason = "nobody sets the time of a measurement")]
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let write_time = i64::try_from(wall.as_micros()).unwrap_or_default().max(writer.last_write_time.get() + 1);
        writer.last_write_time.set(write_time);
        let values = (
            user,
            movie,
            1_234.5 + f64::from(u16::try_from(row % 5_000).unwrap_or(0)),
            7_200.0,
            write_time,
            None::<i32>,
        );
        writer.session.execute_unpaged(&writer.insert, values).await?;
        writer.micros.borrow_mut().push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(())
}

/// User and system time of this process, in hundredths of a second.
fn ticks() -> Result<u64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?.1.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
