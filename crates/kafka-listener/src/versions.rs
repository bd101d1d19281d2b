//! ApiVersions: the table, as the client sees it.
//!
//! Adapter layer.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::dispatch::Peer;
use crate::wire::api::Api;

/// The table, for a client that has introduced itself (since version 3).
pub fn answer(peer: &Peer, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    let (name, version) = (&*request.client_software_name, &*request.client_software_version);
    tracing::debug!(remote = %peer.remote, name, version, "kafka client introduced itself");
    supported()
}

fn supported() -> ApiVersionsResponse {
    let api_keys = Api::ALL.iter().map(|api| {
        let (min, max) = api.versions();
        ApiVersion::default().with_api_key(api.number()).with_min_version(min).with_max_version(max)
    });
    ApiVersionsResponse::default().with_api_keys(api_keys.collect())
}

/// The same, for a client that asked in a version nobody here speaks: it tries again with one of these (KIP-511).
pub fn unsupported() -> ApiVersionsResponse {
    supported().with_error_code(ResponseError::UnsupportedVersion.code())
}
