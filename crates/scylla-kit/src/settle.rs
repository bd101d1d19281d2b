//! A schema that another process has just made: a node may list a table before it serves it.

use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;

/// How long what was just made may be unknown.
const SETTLE_MAX: Duration = Duration::from_secs(15);
/// Pause between two tries.
const RETRY: Duration = Duration::from_millis(250);

/// Repeats a harmless request as long as it is refused and what it names may be too new.
pub async fn settled<T, F>(request: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let began = Instant::now();
    loop {
        match request().await {
            Err(Failure::Refused { .. }) if began.elapsed() < SETTLE_MAX => tokio::time::sleep(RETRY).await,
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn refused() -> Failure {
        Failure::Refused { reason: "no such table".into() }
    }

    #[tokio::test]
    async fn what_is_too_new_is_asked_again() {
        let tries = AtomicU32::new(0);
        let answer = settled(|| {
            let tried = tries.fetch_add(1, Ordering::Relaxed);
            async move { if tried < 2 { Err(refused()) } else { Ok(7) } }
        })
        .await;
        assert_eq!(answer, Ok(7));
        let away = Failure::Unavailable { reason: "away".into() };
        assert_eq!(settled(|| std::future::ready(Err::<(), _>(away.clone()))).await, Err(away.clone()));
    }
}
