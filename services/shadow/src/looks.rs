//! Looks at what will be there soon, further and further apart.

use std::time::Duration;

/// The pauses between them: each is twice the one before, up to the longest.
pub struct Looks {
    pause: Duration,
    longest: Duration,
}

impl Looks {
    /// Of which the first pause is `first`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { pause: first, longest }
    }

    /// Waits until it is time for the next look.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(self.longest);
    }
}
