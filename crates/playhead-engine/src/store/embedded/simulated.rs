//! A disk in memory that can crash: what was not synced may survive in any part, and calls fail on order.
//!
//! Used by the simulation alone. Everything is decided by one seeded generator, so the same seed gives the same crash,
//! and [`SimDisk::trace`] the same number.
//!
//! **What a crash does.** Of each write that was not synced, any subset of 64-byte pieces survives (a sector may be
//! torn), later writes independently of earlier ones. Of the names given and taken since the last sync of the
//! directory, any subset survives. What was written before a sync that failed reads back until the crash and is gone
//! after it.

use super::disk::Disk;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// A directory in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

/// A file of [`SimDisk`].
#[derive(Debug)]
pub(crate) struct SimFile {
    inode: usize,
    /// The process that opened it: after a crash its handles are dead.
    life: u64,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    life: u64,
    calls: u64,
    order: Option<Order>,
    is_down: bool,
    /// Whether a call has failed on order, or for want of power, since the process began.
    has_failed: bool,
    sabotage: Sabotage,
    trace: DefaultHasher,
}

#[derive(Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Created(String, usize),
    Renamed(String, String, usize),
    Removed(String),
}

/// What happens at a certain call, counted over all calls that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// From this call on every call fails: the power is gone.
    PowerOff { at: u64 },
    /// This call alone fails.
    Fail { at: u64 },
}

/// A defence that is left out, to see that the simulation notices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sabotage {
    #[default]
    None,
    /// fdatasync does nothing.
    NoSync,
    /// fsync of the directory does nothing.
    NoDirectorySync,
}

impl SimDisk {
    pub(crate) fn new(sabotage: Sabotage) -> Self {
        let disk = Self::default();
        disk.state().sabotage = sabotage;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }

    /// Calls so far that changed something.
    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Gives an order, or takes it back.
    pub(crate) fn order(&self, order: Option<Order>) {
        self.state().order = order;
    }

    /// Whether a call has failed on order, or for want of power, since the process began.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    /// The process ends, the machine goes on: the page cache keeps everything.
    pub(crate) fn kill_process(&self) {
        let mut state = self.state();
        state.life += 1;
        state.is_down = false;
        state.has_failed = false;
        state.order = None;
    }

    /// The machine ends: only what was synced is sure to be there.
    pub(crate) fn crash(&self, random: &mut fastrand::Rng) {
        const PIECE: usize = 64;
        let mut state = self.state();
        state.life += 1;
        state.is_down = false;
        state.has_failed = false;
        state.order = None;
        for inode in &mut state.inodes {
            for (offset, bytes) in std::mem::take(&mut inode.pending) {
                let all = random.u8(0..4);
                for (index, piece) in bytes.chunks(PIECE).enumerate() {
                    let survives = match all {
                        0 => true,
                        1 => false,
                        _ => random.bool(),
                    };
                    if survives {
                        put(&mut inode.durable, offset + index * PIECE, piece);
                    }
                }
            }
            inode.bytes.clone_from(&inode.durable);
        }
        for change in std::mem::take(&mut state.pending_names) {
            if random.bool() {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
    }

    /// A number that two runs of one seed have in common.
    pub(crate) fn trace(&self) -> u64 {
        self.state().trace.finish()
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Created(name, inode) => {
                names.insert(name, inode);
            }
            Self::Renamed(from, to, inode) => {
                if names.get(&from) == Some(&inode) {
                    names.remove(&from);
                }
                names.insert(to, inode);
            }
            Self::Removed(name) => {
                names.remove(&name);
            }
        }
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn down() -> io::Error {
    io::Error::other("the power is gone")
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

impl State {
    /// Counts a call that changes something, and fails it on order.
    fn change(&mut self, what: &str, name: usize) -> io::Result<()> {
        self.calls += 1;
        (what, name, self.calls).hash(&mut self.trace);
        let error = match self.order {
            _ if self.is_down => down(),
            Some(Order::PowerOff { at }) if self.calls >= at => {
                self.is_down = true;
                down()
            }
            Some(Order::Fail { at }) if self.calls == at => io::Error::other("failed on order"),
            _ => return Ok(()),
        };
        self.has_failed = true;
        Err(error)
    }

    fn rename_names(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn inode(&mut self, file: &SimFile) -> io::Result<&mut Inode> {
        if file.life == self.life && !self.is_down { Ok(&mut self.inodes[file.inode]) } else { Err(down()) }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        state.change("create", 0)?;
        if state.names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name} is there")));
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.rename_names(NameChange::Created(name.to_owned(), inode));
        Ok(SimFile { inode, life: state.life })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let state = self.state();
        let inode = *state.names.get(name).ok_or_else(|| missing(name))?;
        Ok(SimFile { inode, life: state.life })
    }

    fn length(&self, file: &SimFile) -> io::Result<u64> {
        Ok(self.state().inode(file)?.bytes.len() as u64)
    }

    fn read_at(&self, file: &SimFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let bytes = &state.inode(file)?.bytes;
        let offset = usize::try_from(offset).expect("simulated files are small");
        let found = bytes.get(offset..offset + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, file: &SimFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let result = state.change("write", file.inode);
        // A write that fails, or is cut off, may have reached the disk all the same.
        let is_lost = file.life != state.life;
        if !is_lost {
            let offset = usize::try_from(offset).expect("simulated files are small");
            let inode = &mut state.inodes[file.inode];
            put(&mut inode.bytes, offset, bytes);
            inode.pending.push((offset, bytes.to_vec()));
        }
        if is_lost { Err(down()) } else { result }
    }

    fn sync(&self, file: &SimFile) -> io::Result<()> {
        let mut state = self.state();
        let result = state.change("sync", file.inode);
        let is_left_out = state.sabotage == Sabotage::NoSync;
        let is_down = state.is_down;
        let inode = &mut state.inodes[file.inode];
        match result {
            Ok(()) if is_left_out => {}
            Ok(()) => {
                for (offset, bytes) in std::mem::take(&mut inode.pending) {
                    put(&mut inode.durable, offset, &bytes);
                }
            }
            // Cut off: what was on its way may or may not arrive. Failed: it reads back, and never arrives.
            Err(_) if is_down => {}
            Err(_) => inode.pending.clear(),
        }
        result
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change("rename", 0)?;
        let inode = *state.names.get(from).ok_or_else(|| missing(from))?;
        state.rename_names(NameChange::Renamed(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change("remove", 0)?;
        if !state.names.contains_key(name) {
            return Err(missing(name));
        }
        state.rename_names(NameChange::Removed(name.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.change("sync directory", 0)?;
        if state.sabotage != Sabotage::NoDirectorySync {
            for change in std::mem::take(&mut state.pending_names) {
                change.apply(&mut state.durable_names);
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}
