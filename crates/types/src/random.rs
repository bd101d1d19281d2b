//! The randomness port: ids and secrets come from here, so that simulation can seed them.

/// A source of random bytes. The operating system's lives in `drover-host`.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes`; the system's source is fit for secrets.
    fn fill(&self, bytes: &mut [u8]);
}
