//! A file system with little room, for tests of a disk that fills up.
//!
//! Mounting one wants rights that few have. So a test runs itself again, alone, in a user and a mount namespace of its own:
//! nothing is left behind, and nobody has to be root.

use std::path::PathBuf;
use std::process::Command;

/// Tells the test that runs again where its disk is.
const DISK: &str = "DROVER_TEST_SMALL_DISK";
/// What [`SCRIPT`] exits with where mounting is not allowed.
const NOT_MOUNTED: i32 = 77;
/// Mounts a disk of `$1` bytes where [`DISK`] says, and runs the other arguments.
const SCRIPT: &str = r#"mount -t tmpfs -o "size=$1" none "$DROVER_TEST_SMALL_DISK" || exit 77; shift; exec "$@""#;

/// The directory of a disk of `bytes` bytes, which is the place of temporary files as well: for who runs on it already.
///
/// `None` once the test called `name`, its modules included, has passed on one; or, after one line that says why, where there
/// can be none.
///
/// # Panics
/// If the test has failed there; what it said is the message.
pub fn enter(name: &str, bytes: u64) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(disk.into());
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", &bytes.to_string()]);
    command.arg(std::env::current_exe().expect("this test")).args(["--exact", name, "--nocapture"]);
    let output = match command.env(DISK, directory.path()).env("TMPDIR", directory.path()).output() {
        Ok(output) => output,
        Err(error) => return not_run(name, &format!("unshare: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NOT_MOUNTED) || said.starts_with("unshare:") {
        return not_run(name, said.trim());
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{name} on a small disk: {printed}{said}");
    None
}

/// Printable text that does not compress, so that it takes its room; another one for each `seed`.
pub fn noise(seed: u64, bytes: usize) -> String {
    const SIGNS: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // xorshift64; the state must not be 0.
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let signs = (0..bytes).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(SIGNS[usize::try_from(state >> 58).unwrap_or(0)])
    });
    signs.collect()
}

fn not_run<T>(name: &str, why: &str) -> Option<T> {
    println!("NOT RUN: a small disk cannot be mounted here ({name}): {why}");
    None
}
