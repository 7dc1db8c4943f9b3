//! The table in memory: every user's few titles as last committed, overwritten in place.
//!
//! The committer applies each record after its frame is durable; reads copy a user's entries; the drain walks a frozen
//! table in the base's key order. [`super::tables`] holds the two tables that take turns.
//!
//! **The promise.** What the table knows of a title is what [`crate::store::memory::Model`] would know of it after the
//! same records: the newest write time wins, at a tie a deletion does, and of two positions each column keeps its
//! greater value. An erasure drops the user's older entries and stays as an entry of its own; what comes at or below a
//! barrier is dropped.
//!
//! **Live and late.** A live entry is surely newer than everything in the frozen table and in the base, because write
//! times of live writes rise strictly and the base holds only what was committed before. A late entry
//! ([`RecordKind::LatePut`]) may be older, and whoever reads it or drains it compares. A late put that beats a live
//! entry or an erasure of this very table is newer than something that is newer than the base: it counts as live.
//!
//! **The limits.** One writer of a user's entries at a time: the committer, or at a start one applier per share of the
//! users ([`super::replay`]); any number of readers, each holding the lock of one shard in 64 for as long as it takes to copy one user's entries. [`Memtable::bytes`] is what
//! the table has allocated; its owner freezes it at a bound. A user with one title, which is most of them, costs 40
//! bytes and his share of the free slots of a hash table, 86 bytes in all at a million users. A user with more than
//! [`FEW_MAX`] titles gets a tree, so that no single user can make `apply` slow.

use super::sync::{Mutex, MutexGuard};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Slot;
use playhead_core::{Bookmark, MediaDuration, MovieId, Position, Record, RecordKind, UserId, WriteTime, newest};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter::FusedIterator;
use std::num::NonZeroU64;
use std::ops::Bound;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Locks of a table: with four readers and one writer they hardly ever meet in one of 64. A model checker tries every
/// order of locks, so it gets few of them.
const SHARDS: usize = if cfg!(feature = "model-check") { 2 } else { 64 };

/// Up to here a user's titles lie in a sorted vector, 2 KiB at most; above, in a tree.
const FEW_MAX: usize = 64;

/// Titles of one user that [`Sorted`] copies under one lock.
const COPIED_AT_ONCE: usize = 1_024;

/// What a tree node's slot costs: 40 bytes, its nodes between half and completely full.
const TREE_BYTES_PER_TITLE: usize = 64;

/// What the allocator adds to a block of the heap.
const HEAP_OVERHEAD: usize = 16;

/// One title of a user, or the user's erasure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Entry {
    movie: MovieId,
    position: Position,
    /// 0.0 if it is unknown, as in a record.
    duration_seconds: f64,
    /// The kind in the top byte, the write time below, as in a record. Never zero, so that a user with one title
    /// needs no tag to tell him from one with more.
    stamp: NonZeroU64,
}

const _: () = assert!(size_of::<Entry>() == 32);
const _: () = assert!(size_of::<User>() == 32, "the stamp's zero tells the variants apart");

impl Entry {
    /// The entry that a record makes.
    pub(crate) fn of(record: &Record) -> Self {
        Self::new(record.kind, &record.row)
    }

    fn new(kind: RecordKind, row: &Bookmark) -> Self {
        Self {
            movie: row.movie,
            position: row.position,
            duration_seconds: row.duration.map_or(0.0, MediaDuration::seconds),
            stamp: stamp(kind, row.write_time),
        }
    }

    /// What the entry does.
    pub(crate) fn kind(&self) -> RecordKind {
        match self.stamp.get() >> 56 {
            1 => RecordKind::Put,
            2 => RecordKind::LatePut,
            3 => RecordKind::Forget,
            _ => RecordKind::Erase,
        }
    }

    /// The title; meaningless for an erasure.
    pub(crate) fn movie(&self) -> MovieId {
        self.movie
    }

    /// When it was written.
    pub(crate) fn write_time(&self) -> WriteTime {
        WriteTime::from_micros(self.stamp.get() & ((1 << 56) - 1))
    }

    /// The row; means something for puts only.
    pub(crate) fn row(&self) -> Bookmark {
        Bookmark {
            movie: self.movie,
            position: self.position,
            duration: MediaDuration::from_seconds(self.duration_seconds).ok(),
            write_time: self.write_time(),
        }
    }

    /// Whether it is surely newer than frozen table and base.
    pub(crate) fn is_live(&self) -> bool {
        self.kind() != RecordKind::LatePut
    }

    fn into_live(self) -> Self {
        if self.is_live() { self } else { Self { stamp: stamp(RecordKind::Put, self.write_time()), ..self } }
    }

    /// The winner of two entries of one title.
    fn merged(self, other: Self) -> Self {
        let winner = match self.write_time().cmp(&other.write_time()) {
            Ordering::Greater => self,
            Ordering::Less => other,
            Ordering::Equal if self.kind() == RecordKind::Forget => self,
            Ordering::Equal if other.kind() == RecordKind::Forget => other,
            Ordering::Equal => Self::new(RecordKind::LatePut, &newest(self.row(), other.row())),
        };
        if self.is_live() || other.is_live() { winner.into_live() } else { winner }
    }
}

fn stamp(kind: RecordKind, write_time: WriteTime) -> NonZeroU64 {
    NonZeroU64::new((kind as u64) << 56 | write_time.micros()).expect("no kind is zero")
}

/// What a table knows of one user.
#[derive(Debug)]
enum User {
    /// One title, or the erasure alone.
    One(Entry),
    More(Box<More>),
}

#[derive(Debug)]
struct More {
    erased: Option<WriteTime>,
    titles: Titles,
}

#[derive(Debug)]
enum Titles {
    /// Ascending by title.
    Few(Vec<Entry>),
    Many(BTreeMap<MovieId, Entry>),
}

impl User {
    fn apply(&mut self, incoming: Entry) {
        if let Self::One(existing) = self {
            let is_title = |entry: &Entry| entry.kind() != RecordKind::Erase;
            if is_title(existing) && is_title(&incoming) && existing.movie == incoming.movie {
                *existing = existing.merged(incoming);
                return;
            }
            let (erased, titles) = match existing.kind() {
                RecordKind::Erase => (Some(existing.write_time()), Vec::new()),
                _ => (None, Vec::from([*existing])),
            };
            *self = Self::More(Box::new(More { erased, titles: Titles::Few(titles) }));
        }
        if let Self::More(more) = self {
            more.apply(incoming);
            if let Some(only) = more.only() {
                *self = Self::One(only);
            }
        }
    }

    fn entries(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::More(more) => usize::from(more.erased.is_some()) + more.titles.len(),
        }
    }

    /// What the user holds beside his slot in the hash table.
    fn heap_bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::More(more) => size_of::<More>() + HEAP_OVERHEAD + more.titles.heap_bytes(),
        }
    }

    fn erased(&self) -> Option<WriteTime> {
        match self {
            Self::One(entry) => (entry.kind() == RecordKind::Erase).then(|| entry.write_time()),
            Self::More(more) => more.erased,
        }
    }

    fn title(&self, movie: MovieId) -> Option<Entry> {
        match self {
            Self::One(entry) => (entry.kind() != RecordKind::Erase && entry.movie == movie).then_some(*entry),
            Self::More(more) => more.titles.get(movie),
        }
    }

    /// Appends the titles after `after`, ascending, `limit` at most.
    fn copy_titles(&self, after: Option<MovieId>, limit: usize, into: &mut Vec<Entry>) {
        let is_after = |entry: &Entry| after.is_none_or(|after| entry.movie > after);
        match self {
            Self::One(entry) if entry.kind() != RecordKind::Erase && is_after(entry) => into.push(*entry),
            Self::One(_) => {}
            Self::More(more) => match &more.titles {
                Titles::Few(titles) => into.extend(titles.iter().copied().filter(is_after).take(limit)),
                Titles::Many(titles) => {
                    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                    into.extend(titles.range((from, Bound::Unbounded)).map(|(_, entry)| *entry).take(limit));
                }
            },
        }
    }
}

impl More {
    fn apply(&mut self, incoming: Entry) {
        if self.erased.is_some_and(|erased| erased >= incoming.write_time()) {
            return;
        }
        if incoming.kind() == RecordKind::Erase {
            self.erased = Some(incoming.write_time());
            self.titles.keep_newer(incoming.write_time());
        } else {
            let incoming = if self.erased.is_some() { incoming.into_live() } else { incoming };
            self.titles.merge(incoming);
        }
    }

    /// The one entry that is left, if it is one.
    fn only(&self) -> Option<Entry> {
        match (self.erased, &self.titles) {
            (Some(erased), titles) if titles.len() == 0 => {
                let row = Record::erase(UserId(0), erased).row;
                Some(Entry::new(RecordKind::Erase, &row))
            }
            _ => None,
        }
    }
}

impl Titles {
    fn len(&self) -> usize {
        match self {
            Self::Few(titles) => titles.len(),
            Self::Many(titles) => titles.len(),
        }
    }

    fn get(&self, movie: MovieId) -> Option<Entry> {
        match self {
            Self::Few(titles) => titles.binary_search_by_key(&movie, |entry| entry.movie).ok().map(|at| titles[at]),
            Self::Many(titles) => titles.get(&movie).copied(),
        }
    }

    fn merge(&mut self, incoming: Entry) {
        match self {
            Self::Few(titles) => match titles.binary_search_by_key(&incoming.movie, |entry| entry.movie) {
                Ok(at) => titles[at] = titles[at].merged(incoming),
                Err(at) if titles.len() < FEW_MAX => {
                    if titles.len() == titles.capacity() {
                        titles.reserve_exact(titles.len().max(2));
                    }
                    titles.insert(at, incoming);
                }
                Err(_) => {
                    let mut many: BTreeMap<_, _> = titles.iter().map(|entry| (entry.movie, *entry)).collect();
                    many.insert(incoming.movie, incoming);
                    *self = Self::Many(many);
                }
            },
            Self::Many(titles) => {
                titles
                    .entry(incoming.movie)
                    .and_modify(|existing| *existing = existing.merged(incoming))
                    .or_insert(incoming);
            }
        }
    }

    /// Drops what an erasure bars. What is left is newer than the erasure, so it is live.
    fn keep_newer(&mut self, barrier: WriteTime) {
        let is_newer = |entry: &Entry| entry.write_time() > barrier;
        match self {
            Self::Few(titles) => {
                titles.retain(is_newer);
                titles.iter_mut().for_each(|entry| *entry = entry.into_live());
            }
            Self::Many(titles) => {
                titles.retain(|_, entry| is_newer(entry));
                titles.values_mut().for_each(|entry| *entry = entry.into_live());
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Few(titles) => titles.capacity() * size_of::<Entry>() + HEAP_OVERHEAD,
            Self::Many(titles) => titles.len() * TREE_BYTES_PER_TITLE,
        }
    }
}

type Shard = HashMap<UserId, User>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Memtable {
    shards: [Mutex<Shard>; SHARDS],
    entries: AtomicUsize,
    bytes: AtomicUsize,
}

/// A copy of what a table knows of some titles of one user.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    /// The user's erasure.
    pub(crate) erased: Option<WriteTime>,
    /// The titles that were found, in the order asked for, or ascending if all were.
    pub(crate) titles: Vec<Entry>,
}

impl Memtable {
    /// An empty table that has allocated nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Shard::default())),
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// The shard a user's entries lie in.
    pub(crate) fn shard_of(user: UserId) -> usize {
        // Fibonacci hashing. A crowd of users in one shard would cost waiting for a lock, nothing else: the hash
        // tables themselves are seeded.
        let hash = user.0.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        hash as usize % SHARDS
    }

    fn shard(&self, user: UserId) -> MutexGuard<'_, Shard> {
        lock(&self.shards[Self::shard_of(user)])
    }

    /// Carries out one record. The records of one user must come from one caller at a time, in their order.
    pub(crate) fn apply(&self, record: &Record) {
        let incoming = Entry::of(record);
        let mut shard = self.shard(record.user);
        let (entries_before, bytes_before, entries, bytes);
        let slots_before = shard.allocation_size();
        match shard.entry(record.user) {
            Slot::Occupied(mut slot) => {
                let user = slot.get_mut();
                (entries_before, bytes_before) = (user.entries(), user.heap_bytes());
                user.apply(incoming);
                (entries, bytes) = (user.entries(), user.heap_bytes());
            }
            Slot::Vacant(slot) => {
                slot.insert(User::One(incoming));
                (entries_before, bytes_before, entries, bytes) = (0, 0, 1, 0);
            }
        }
        let slots = shard.allocation_size();
        drop(shard);
        change(&self.entries, entries_before, entries);
        change(&self.bytes, slots_before + bytes_before, slots + bytes);
    }

    /// Whether it knows nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries() == 0
    }

    /// Titles and erasures.
    pub(crate) fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// What the table has allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Copies what is known of these titles of a user.
    pub(crate) fn copy(&self, user: UserId, movies: &[MovieId]) -> Copied {
        let mut titles = Vec::with_capacity(movies.len());
        let shard = self.shard(user);
        let Some(user) = shard.get(&user) else { return Copied::default() };
        titles.extend(movies.iter().filter_map(|movie| user.title(*movie)));
        Copied { erased: user.erased(), titles }
    }

    /// Copies all that is known of a user.
    pub(crate) fn copy_all(&self, user: UserId) -> Copied {
        let shard = self.shard(user);
        let Some(user) = shard.get(&user) else { return Copied::default() };
        let mut titles = Vec::with_capacity(user.entries());
        user.copy_titles(None, usize::MAX, &mut titles);
        Copied { erased: user.erased(), titles }
    }

    /// Every entry in the base's key order: users ascending, of each his erasure first, then his titles ascending.
    ///
    /// Takes 8 bytes per user. The table must be frozen: a change of it meanwhile would be seen in part.
    pub(crate) fn sorted(&self) -> Sorted<'_> {
        let mut users = Vec::new();
        for shard in &self.shards {
            users.extend(lock(shard).keys().copied());
        }
        users.sort_unstable();
        Sorted { table: self, users: users.into_iter(), user: UserId(0), copied: Vec::new(), next: 0, is_cut: false }
    }

    /// Forgets everything and keeps the room, but for what the table has not used this time: after one exceptional
    /// size the room goes back to the allocator at the second clearing.
    pub(crate) fn clear(&self) {
        let mut bytes = 0;
        for shard in &self.shards {
            let mut shard = lock(shard);
            let used = shard.len();
            shard.clear();
            if shard.capacity() / 8 > used {
                shard.shrink_to(used * 2);
            }
            bytes += shard.allocation_size();
        }
        self.entries.store(0, Relaxed);
        self.bytes.store(bytes, Relaxed);
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // The map is whole after every call that could panic in between, which is out of memory only.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes a sum, if it changes: an overwrite, which is what most writes are, costs no locked instruction.
fn change(sum: &AtomicUsize, before: usize, after: usize) {
    if before != after {
        sum.fetch_add(after.wrapping_sub(before), Relaxed);
    }
}

/// See [`Memtable::sorted`].
#[derive(Debug)]
pub(crate) struct Sorted<'a> {
    table: &'a Memtable,
    users: std::vec::IntoIter<UserId>,
    /// Whose entries were copied.
    user: UserId,
    copied: Vec<Entry>,
    next: usize,
    /// Whether the user has titles after the last one copied.
    is_cut: bool,
}

impl Sorted<'_> {
    fn refill(&mut self) -> bool {
        let after = self.copied.last().filter(|_| self.is_cut).map(Entry::movie);
        if after.is_none() {
            let Some(user) = self.users.next() else { return false };
            self.user = user;
        }
        self.copied.clear();
        self.next = 0;
        let shard = self.table.shard(self.user);
        let Some(user) = shard.get(&self.user) else { return true };
        if let Some(erased) = user.erased().filter(|_| after.is_none()) {
            self.copied.push(Entry::of(&Record::erase(self.user, erased)));
        }
        let before = self.copied.len();
        user.copy_titles(after, COPIED_AT_ONCE, &mut self.copied);
        self.is_cut = self.copied.len() - before == COPIED_AT_ONCE;
        true
    }
}

impl Iterator for Sorted<'_> {
    type Item = (UserId, Entry);

    fn next(&mut self) -> Option<(UserId, Entry)> {
        while self.next == self.copied.len() {
            if !self.refill() {
                return None;
            }
        }
        self.next += 1;
        Some((self.user, self.copied[self.next - 1]))
    }
}

impl FusedIterator for Sorted<'_> {}

#[cfg(test)]
mod tests;
