//! A small file system for one process (ext4 in a file), which can be full, and can stand still.
//!
//! It is mounted in the namespace of this run alone. One that stands still is set free when this process ends, however
//! that came: who freezes it waits for the end of a pipe.

use std::fs::{self, File};
use std::io::{ErrorKind, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::{rooms, tools};
use crate::scenario::Kind;

/// Writes wait until the thaw, again and again: 400 of 500 ms. Ends with standard input, and leaves it thawed.
const SCRIPT: &str = r#"
while fsfreeze --freeze "$1"; do
  timeout 0.4 cat >/dev/null; told=$?
  fsfreeze --unfreeze "$1"
  [ $told -eq 124 ] || exit 0
  timeout 0.1 cat >/dev/null
  [ $? -eq 124 ] || exit 0
done
"#;
/// What fills it, and with what the last gaps are filled.
const BALLAST: &str = "ballast";
const CRUMB: [u8; 4_096] = [0; 4_096];
const MIB: u64 = 1024 * 1024;

/// A file system; unmounted when dropped, once nobody uses it.
pub struct Disk {
    folder: PathBuf,
    freezer: Option<Child>,
}

impl Disk {
    /// Makes one of `mib` MiB in the file `image`, for this fault among others, and mounts it at `folder`.
    pub fn make(fault: Kind, image: &Path, folder: &Path, mib: u32) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let file = File::create_new(image).with_context(|| image.display().to_string())?;
        file.set_len(u64::from(mib) * MIB)?;
        // Nothing is kept for root, or root's processes would find room on a full disk.
        tools::run_words(&["mkfs.ext4", "-q", "-F", "-m", "0", tools::word(image)?])?;
        let mounted = tools::run_words(&["mount", "-o", "loop", tools::word(image)?, tools::word(folder)?]);
        mounted.map_err(|error| rooms::not_allowed(fault, &error))?;
        let disk = Self { folder: folder.to_owned(), freezer: None };
        // Whose data lie there expects an empty folder.
        fs::remove_dir(folder.join("lost+found")).context("lost+found")?;
        Ok(disk)
    }

    /// Begins a fault.
    pub fn strike(&mut self, kind: Kind) -> anyhow::Result<()> {
        match kind {
            Kind::Full => self.fill(),
            Kind::Slow => self.freeze(),
            _ => Ok(()),
        }
    }

    /// Ends a fault.
    pub fn recover(&mut self, kind: Kind) -> anyhow::Result<()> {
        match kind {
            Kind::Full => fs::remove_file(self.folder.join(BALLAST)).context("the ballast"),
            Kind::Slow => self.thaw(),
            _ => Ok(()),
        }
    }

    /// Takes all room.
    fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.folder.join(BALLAST)).context("the ballast")?;
        let known = statvfs(&self.folder)?;
        let free = known.f_bavail * known.f_frsize;
        // As much as goes in one piece; somebody may have been quicker.
        if free > 0 && fallocate(&file, FallocateFlags::empty(), 0, free).is_ok() {
            file.seek(SeekFrom::End(0))?;
        }
        loop {
            match file.write(&CRUMB) {
                Ok(1..) => {}
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("the ballast"),
            }
        }
    }

    fn freeze(&mut self) -> anyhow::Result<()> {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "freezer"]).arg(&self.folder).process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.freezer = Some(shell.spawn().context("starting sh")?);
        Ok(())
    }

    fn thaw(&mut self) -> anyhow::Result<()> {
        let Some(mut freezer) = self.freezer.take() else { return Ok(()) };
        drop(freezer.stdin.take());
        let status = freezer.wait()?;
        ensure!(status.success(), "the disk at {} could not be thawed: {status}", self.folder.display());
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The namespace's end does the same, only later.
        self.thaw().ok();
        tools::word(&self.folder).and_then(|folder| tools::run_words(&["umount", folder])).ok();
    }
}
