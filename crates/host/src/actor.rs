//! Who asks: travels with calls from service to service, so that the audit trail can say it.
//!
//! Only services say it: their gRPC is open to this process and to holders of the administrator's token alone, and no
//! header of a request to another port is handed on.

use std::sync::Arc;

use tonic::metadata::MetadataMap;

/// Metadata key of who asks.
pub const ACTOR: &str = "drover-actor";
/// Most bytes of it.
pub const ACTOR_BYTES_MAX: usize = 200;

tokio::task_local! {
    static CURRENT: Arc<str>;
}

/// Does `work` in the name of `actor`; so do the calls of other services that it makes, tasks that it spawns do not.
pub async fn acting<T>(actor: &str, work: impl Future<Output = T>) -> T {
    CURRENT.scope(Arc::from(actor), work).await
}

/// In whose name this task works now; `None`: nobody has said.
pub fn current() -> Option<Arc<str>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Who a call says asks; `None` if it says nothing, or nothing that is within [`ACTOR_BYTES_MAX`] printable characters of
/// ASCII.
pub fn of(metadata: &MetadataMap) -> Option<&str> {
    let text = metadata.get(ACTOR)?.to_str().ok()?;
    let is_plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    Some(text).filter(|text| is_plain && (1..=ACTOR_BYTES_MAX).contains(&text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_in_the_name_of_who_was_said_last() {
        assert_eq!(current(), None);
        acting("administrator", async {
            assert_eq!(current().as_deref(), Some("administrator"));
            acting("registration", async { assert_eq!(current().as_deref(), Some("registration")) }).await;
            assert_eq!(current().as_deref(), Some("administrator"));
        })
        .await;
        assert_eq!(current(), None);
    }

    #[test]
    fn what_is_too_long_or_not_printable_says_nothing() {
        let said = |text: &[u8]| {
            let mut metadata = MetadataMap::new();
            metadata.insert(ACTOR, text.try_into().expect("a value of a header"));
            of(&metadata).map(str::to_owned)
        };
        assert_eq!(of(&MetadataMap::new()), None);
        assert_eq!(said(b"token ci").as_deref(), Some("token ci"));
        assert_eq!(said(&[b'a'; ACTOR_BYTES_MAX]).map(|text| text.len()), Some(ACTOR_BYTES_MAX));
        for nothing in [b"".as_slice(), "tok\u{e9}n".as_bytes(), b"a\tb", &[b'a'; ACTOR_BYTES_MAX + 1]] {
            assert_eq!(said(nothing), None, "{nothing:?}");
        }
    }
}
