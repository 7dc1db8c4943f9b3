//! The disk as the log sees it: one flat directory of files that are written at offsets and synced.
//!
//! [`Disk`] is a seam so that crashes can be simulated; [`OsDisk`] is the real one. Outside `base.rs` this is the only
//! file of the engine that syncs.
//!
//! **The promise.** Bytes written before a [`Disk::sync`] that returned `Ok` survive a power cut, and so do the names
//! given before a [`Disk::sync_dir`] that did. Nothing is promised about anything else, in either direction: a write
//! that was never synced may survive whole, in part or not at all. After a sync that failed nothing is known, so it is
//! never repeated: the caller stops.
//!
//! **The assumption.** Rewriting a sector with the bytes it already holds, or beside others in its 4 KiB block, does
//! not lose the bytes that did not change.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A directory of files. Names are plain file names.
pub(crate) trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: Send;

    /// Makes a new, empty file; an error if the name is taken.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// The file's length in bytes.
    fn length(&self, file: &Self::File) -> io::Result<u64>;
    /// Fills the buffer from this offset; an error if the file ends before it is full.
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all bytes at this offset.
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// fdatasync: on `Ok`, all that was written to the file is on the disk.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Gives a file another name; an existing file of that name is replaced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Takes a file's name away.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// fsync of the directory: on `Ok`, all names given and taken are on the disk.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that may still be written to the file system.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// A directory of the operating system.
#[derive(Debug, Clone)]
pub(crate) struct OsDisk {
    directory: PathBuf,
}

impl OsDisk {
    /// Makes the directory, if need be, and makes sure that its name survives too.
    pub(crate) fn create_directory(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut above = Some(directory);
        // The directory and the one it lies in; whoever made those above has to answer for them.
        for _ in 0..2 {
            if let Some(path) = above {
                let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
                rustix::fs::fsync(File::open(path)?)?;
                above = path.parent();
            }
        }
        Ok(Self { directory: directory.to_owned() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Disk for OsDisk {
    type File = OsFile;

    fn create(&self, name: &str) -> io::Result<OsFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        options.open(self.path(name)).map(OsFile::new)
    }

    fn open(&self, name: &str) -> io::Result<OsFile> {
        OpenOptions::new().read(true).write(true).open(self.path(name)).map(OsFile::new)
    }

    fn length(&self, file: &OsFile) -> io::Result<u64> {
        Ok(file.file.metadata()?.len())
    }

    fn read_at(&self, file: &OsFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        file.file.read_exact_at(buffer, offset)
    }

    #[cfg(not(feature = "fault-held-writes"))]
    fn write_at(&self, file: &OsFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.file.write_all_at(bytes, offset)
    }

    #[cfg(not(feature = "fault-held-writes"))]
    fn sync(&self, file: &OsFile) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&file.file)?)
    }

    #[cfg(feature = "fault-held-writes")]
    fn write_at(&self, file: &OsFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.hold(bytes, offset);
        Ok(())
    }

    #[cfg(feature = "fault-held-writes")]
    fn sync(&self, file: &OsFile) -> io::Result<()> {
        file.write_held()?;
        Ok(rustix::fs::fdatasync(&file.file)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(File::open(&self.directory)?)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// An open file of [`OsDisk`].
#[derive(Debug)]
pub(crate) struct OsFile {
    file: File,
    /// What a power cut would lose: kept here until a sync, so that SIGKILL loses it too.
    #[cfg(feature = "fault-held-writes")]
    held: std::sync::Mutex<Vec<(u64, Vec<u8>)>>,
}

impl OsFile {
    fn new(file: File) -> Self {
        Self {
            file,
            #[cfg(feature = "fault-held-writes")]
            held: std::sync::Mutex::default(),
        }
    }

    #[cfg(feature = "fault-held-writes")]
    fn hold(&self, bytes: &[u8], offset: u64) {
        self.held.lock().expect("no holder panics").push((offset, bytes.to_vec()));
    }

    #[cfg(feature = "fault-held-writes")]
    fn write_held(&self) -> io::Result<()> {
        for (offset, bytes) in self.held.lock().expect("no holder panics").drain(..) {
            self.file.write_all_at(&bytes, offset)?;
        }
        Ok(())
    }
}
