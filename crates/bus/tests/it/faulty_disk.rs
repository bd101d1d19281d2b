//! A disk that fails when told to, and that knows what a loss of power would leave.
//!
//! Files are real; besides, the disk books what is durable: contents by their last successful sync, names by the last
//! successful sync of their directory. What a failed sync was to write is lost, also for a later sync that succeeds.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use drover_bus::embedded::{Disk, SystemDisk};

/// What a disk is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Write,
    Truncate,
    Sync,
    Rename,
    Remove,
    SyncDirectory,
}

/// Which operations fail: by number and kind, with a part of the file's name.
type Plan = Box<dyn FnMut(u64, Operation, &str) -> bool + Send>;

/// What lies on the disk: contents by file.
pub type Image = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Default)]
struct Inode {
    durable: Vec<u8>,
    /// What may be there instead after a sync that failed: all it was to write, whatever was cut off since.
    haunted: Option<Vec<u8>>,
    /// Bytes a failed sync has lost, as long as they are not written again.
    lost: Range<u64>,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    operations: u64,
    failures: u64,
    inodes: HashMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Every file, so that it can be read without its name and its number is given to no other.
    held: HashMap<u64, File>,
    /// What power loss at the first failure would have left.
    at_failure: Option<Vec<Image>>,
}

/// The disk.
#[derive(Default)]
pub struct FaultyDisk(Mutex<State>);

impl FaultyDisk {
    /// From now on operations fail as `plan` says: it gets their number from 0, their kind and the file's name.
    pub fn fail(&self, plan: impl FnMut(u64, Operation, &str) -> bool + Send + 'static) {
        self.state().plan = Some(Box::new(plan));
    }

    /// From now on nothing fails.
    pub fn heal(&self) {
        self.state().plan = None;
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Operations that failed so far.
    pub fn failures(&self) -> u64 {
        self.state().failures
    }

    /// What a loss of power may leave now: only what is durable, and with names or contents that happened to be written, or
    /// that a failed sync has written nevertheless.
    pub fn after_power_loss(&self) -> Vec<Image> {
        self.state().images()
    }

    /// Like [`FaultyDisk::after_power_loss`], at the moment of the first failure.
    pub fn after_power_loss_at_first_failure(&self) -> Vec<Image> {
        self.state().at_failure.take().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds this")
    }

    /// Counts an operation and fails it if it is its turn.
    fn attempt(&self, operation: Operation, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let (number, name) = (state.operations, path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        state.operations += 1;
        let fails = state.plan.as_mut().is_some_and(|plan| plan(number, operation, &name));
        if !fails {
            return Ok(state);
        }
        state.failures += 1;
        if state.at_failure.is_none() {
            state.at_failure = Some(state.images());
        }
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }
}

fn content(file: &File) -> io::Result<Vec<u8>> {
    let mut content = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

impl State {
    fn images(&self) -> Vec<Image> {
        let written = |ino: &u64| self.held.get(ino).map(|file| content(file).expect("reads")).unwrap_or_default();
        let durable = |ino: &u64| self.inodes.get(ino).map(|inode| inode.durable.clone()).unwrap_or_default();
        let with_contents: Image = self.durable_names.iter().map(|(path, ino)| (path.clone(), written(ino))).collect();
        let of_names = |names: &BTreeMap<PathBuf, u64>| -> Image {
            names.iter().map(|(path, ino)| (path.clone(), durable(ino))).collect()
        };
        let haunted = |ino: &u64| self.inodes.get(ino).and_then(|inode| inode.haunted.clone());
        let with_ghosts = |(path, ino): (&PathBuf, &u64)| (path.clone(), haunted(ino).unwrap_or_else(|| durable(ino)));
        let with_ghosts = self.durable_names.iter().map(with_ghosts).collect();
        vec![of_names(&self.durable_names), of_names(&self.names), with_contents, with_ghosts]
    }

    fn inode(&mut self, file: &File) -> io::Result<&mut Inode> {
        Ok(self.inodes.entry(file.metadata()?.ino()).or_default())
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut state = self.attempt(Operation::Create, path)?;
        let file = SystemDisk.create(path)?;
        state.names.insert(path.to_owned(), file.metadata()?.ino());
        state.inode(&file)?.lost = 0..0;
        state.held.insert(file.metadata()?.ino(), file.try_clone()?);
        Ok(file)
    }

    /// A write that fails writes the first half.
    fn write(&self, file: &File, path: &Path, bytes: &[u8], at: u64) -> io::Result<()> {
        match self.attempt(Operation::Write, path) {
            Ok(mut state) => {
                let inode = state.inode(file)?;
                inode.lost.end = inode.lost.end.min(at).max(inode.lost.start);
                SystemDisk.write(file, path, bytes, at)
            }
            Err(error) => {
                SystemDisk.write(file, path, &bytes[..bytes.len() / 2], at)?;
                Err(error)
            }
        }
    }

    fn truncate(&self, file: &File, path: &Path, length: u64) -> io::Result<()> {
        let mut state = self.attempt(Operation::Truncate, path)?;
        let lost = &mut state.inode(file)?.lost;
        *lost = lost.start.min(length)..lost.end.min(length);
        SystemDisk.truncate(file, path, length)
    }

    fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        let length = file.metadata()?.len();
        match self.attempt(Operation::Sync, path) {
            Ok(mut state) => {
                let mut content = content(file)?;
                let inode = state.inode(file)?;
                content[inode.lost.start as usize..inode.lost.end as usize].fill(0);
                inode.durable = content;
                inode.haunted = None;
                Ok(())
            }
            Err(error) => {
                let mut state = self.state();
                let content = content(file)?;
                let inode = state.inode(file)?;
                inode.haunted = Some(content);
                inode.lost = (inode.durable.len() as u64).min(length)..length;
                Err(error)
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.attempt(Operation::Rename, from)?;
        SystemDisk.rename(from, to)?;
        if let Some(ino) = state.names.remove(from) {
            state.names.insert(to.to_owned(), ino);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.attempt(Operation::Remove, path)?;
        SystemDisk.remove(path)?;
        state.names.remove(path);
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.attempt(Operation::SyncDirectory, directory)?;
        let inside = |path: &Path| path.parent() == Some(directory);
        state.durable_names.retain(|path, _| !inside(path));
        let names: Vec<_> = state.names.iter().filter(|(path, _)| inside(path)).map(|(p, i)| (p.clone(), *i)).collect();
        state.durable_names.extend(names);
        Ok(())
    }
}

/// Lays an image of `from` out in `to`.
pub fn lay_out(image: &Image, from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for (path, content) in image {
        let path = to.join(path.strip_prefix(from).expect("files of the log lie in its directory"));
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
        std::fs::write(path, content).expect("writes");
    }
}
