//! Pages of kinds whose objects may be large: a page of them all would be too much to read at once.

use drover_types::ApiError;

use super::{Domain, PAGE_BYTES_MAX, Page, PageRequest};
use crate::object::Kind;

/// Objects read from the store at once for a page.
const READ_AT_ONCE: usize = 8;

impl Domain {
    /// Objects in the order of their names; a page ends also where it would get too large for one answer.
    pub(super) async fn page_of_large(&self, kind: Kind, request: &PageRequest) -> Result<Page, ApiError> {
        let limit = request.limit()?;
        let (mut items, mut bytes, mut after) = (Vec::new(), 0, request.after.clone());
        loop {
            let wanted = READ_AT_ONCE.min(limit + 1 - items.len());
            let found = self.store.page(kind, &request.tenant, &after, wanted).await?;
            let more = found.len() == wanted;
            for object in found {
                bytes += object.bytes();
                if items.len() == limit || (bytes > PAGE_BYTES_MAX && !items.is_empty()) {
                    return Ok(Page { items, next: after });
                }
                after.clone_from(&object.meta.name);
                items.push(object);
            }
            if !more {
                return Ok(Page { items, next: String::new() });
            }
        }
    }
}
