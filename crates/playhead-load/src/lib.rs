//! Open-loop players against any Playhead server, and the proof that it kept what it acknowledged.
//!
//! Called by `playhead load` and its subcommands. A client only: it knows HTTP and nothing of the server's insides.
//!
//! **The promise.** Each simulated viewer, a *streamer*, has a phase of its own and beats when it is due, whatever became
//! of the beats before: latency runs from the *intended* time, so a server that stalls shows as latency and not as a gap.
//! One request of a streamer is under way at a time, as in a player. The *ledger* knows for each row (one title of one
//! user) the last position sent and the last acknowledged; afterwards, or after a crash, each is read back:
//! `last acknowledged <= recovered <= last sent`, and really sent. A run in which the generator itself was late, or sent
//! less than it should have, is called INVALID rather than blamed on the server.
//!
//! **The limits.** Plain HTTP. A run is bounded by its duration and one answer's patience more; nothing is retried
//! beyond it. A streamer costs about 60 bytes and its token.
//!
//! In reading order:
//! - [`plan`]: what a run is to do; [`target`]: where; [`profile`]: how viewers behave;
//! - [`ledger`]: what was sent and acknowledged; [`verify`]: reading it back;
//! - [`wheel`]: who is due; [`desk`]: what a due streamer sends and what an answer means for it;
//! - [`wire`]: the bytes of requests and answers; [`http1`], [`http2`]: connections; [`worker`]: a thread of them;
//! - [`measure`]: what is counted; [`report`]: the result, its JSON and how several are merged; [`table`], [`html`],
//!   [`plot`]: for people;
//! - [`mod@run`]: one run from its start to its result; [`capacity`]: the most streamers that a server carries.

pub mod plan;
pub mod target;
pub mod profile;
pub mod ledger;
pub mod verify;
mod wheel;
mod desk;
mod wire;
mod http1;
mod http2;
mod worker;
pub mod measure;
pub mod report;
pub mod table;
pub mod html;
mod plot;
pub mod run;
pub mod capacity;

pub use plan::Plan;
pub use run::{Finished, LoadError, Stop, run};
