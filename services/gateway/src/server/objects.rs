//! What all collections share: pages, and answers.

use axum::Json;
use drover_types::ApiError;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use drover_host::http::Failure;

/// An answer of one object, or why there is none.
pub type Answer<T> = Result<Json<T>, Failure>;

/// Objects of a page that does not say how many it wants.
const PAGE_ITEMS: u32 = 100;

/// The query of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Page {
    /// How many objects; 100 where absent.
    #[param(minimum = 1, maximum = 1000)]
    pub page_size: Option<u32>,
    /// The `nextPageToken` of the page before.
    #[param(required = false)]
    pub page_token: String,
}

impl Page {
    /// How many objects, at most `limit`.
    pub fn size(&self, limit: u32) -> Result<u32, ApiError> {
        page_size(self.page_size, limit)
    }
}

/// How many objects a page has of which `wanted` were asked for, at most `limit`.
pub fn page_size(wanted: Option<u32>, limit: u32) -> Result<u32, ApiError> {
    match wanted {
        None => Ok(PAGE_ITEMS.min(limit)),
        Some(size) if (1..=limit).contains(&size) => Ok(size),
        Some(size) => Err(ApiError::invalid("pageSize", format!("is out of range 1 to {limit}")).over(limit, size)),
    }
}

/// One page of objects.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    pub items: Vec<T>,
    /// Asks for the page after this one; absent: this is the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub next_page_token: String,
}

/// The answer to whatever takes credentials away.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revoked {
    /// Nodes that did not confirm in time that the connections are closed.
    pub unconfirmed_nodes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pages_size_is_bounded() {
        let page = |page_size| Page { page_size, page_token: String::new() };
        assert_eq!(page(None).size(1_000), Ok(100));
        assert_eq!(page(None).size(10), Ok(10));
        assert_eq!(page(Some(1_000)).size(1_000), Ok(1_000));
        for size in [0, 1_001] {
            assert_eq!(page(Some(size)).size(1_000).expect_err("refused").field.as_deref(), Some("pageSize"));
        }
    }
}
