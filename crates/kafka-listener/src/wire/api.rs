//! The table of APIs: what is spoken, in which versions; everything else about an API follows from its line.
//!
//! Protocol layer. The version caps and their reasons are in `docs/adr/0004-kafka-listener.md`.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{self, ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::{Malformed, frame, shape};

macro_rules! apis {
    ($($api:ident $min:literal to $max:literal, $request:ident -> $response:ident;)+) => {
        /// An API this listener speaks.
        #[expect(clippy::enum_variant_names, reason = "the names are those of Kafka's protocol guide")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Api { $($api),+ }

        /// A decoded request body.
        #[derive(Clone, Debug)]
        pub enum Request { $($api(messages::$request)),+ }

        /// A response body, to be encoded in the version of its request.
        #[derive(Clone, Debug)]
        pub enum Response { $($api(messages::$response)),+ }

        impl Api {
            /// Every API spoken, in the order of the table.
            pub const ALL: &[Api] = &[$(Api::$api),+];

            /// Name as in Kafka's protocol guide; the `api` label of the metrics.
            pub fn name(self) -> &'static str {
                match self { $(Api::$api => stringify!($api)),+ }
            }

            /// Lowest and highest version spoken.
            pub fn versions(self) -> (i16, i16) {
                match self { $(Api::$api => ($min, $max)),+ }
            }

            fn key(self) -> ApiKey {
                match self { $(Api::$api => ApiKey::$api),+ }
            }

            fn decode(self, mut body: Bytes, version: i16) -> Result<Request, String> {
                match self {
                    $(Api::$api => messages::$request::decode(&mut body, version).map(Request::$api)),+
                }
                .map_err(|e| e.to_string())
            }
        }

        impl Request {
            /// The API this asks.
            pub fn api(&self) -> Api {
                match self { $(Request::$api(_) => Api::$api),+ }
            }
        }

        impl Response {
            /// The API this answers.
            pub fn api(&self) -> Api {
                match self { $(Response::$api(_) => Api::$api),+ }
            }

            fn encode_body(&self, buffer: &mut BytesMut, version: i16) -> Result<(), Unencodable> {
                match self { $(Response::$api(body) => body.encode(buffer, version)),+ }
                    .map_err(|e| Unencodable { api: self.api().name(), version, reason: e.to_string() })
            }
        }

        $(impl From<messages::$response> for Response {
            fn from(body: messages::$response) -> Self {
                Response::$api(body)
            }
        })+
    };
}

apis! {
    ApiVersions 0 to 3, ApiVersionsRequest -> ApiVersionsResponse;
    SaslHandshake 0 to 1, SaslHandshakeRequest -> SaslHandshakeResponse;
    SaslAuthenticate 0 to 2, SaslAuthenticateRequest -> SaslAuthenticateResponse;
    Metadata 0 to 9, MetadataRequest -> MetadataResponse;
    DescribeCluster 0 to 1, DescribeClusterRequest -> DescribeClusterResponse;
    ListOffsets 1 to 6, ListOffsetsRequest -> ListOffsetsResponse;
    OffsetForLeaderEpoch 2 to 4, OffsetForLeaderEpochRequest -> OffsetForLeaderEpochResponse;
    Fetch 4 to 12, FetchRequest -> FetchResponse;
    Produce 3 to 9, ProduceRequest -> ProduceResponse;
    InitProducerId 0 to 4, InitProducerIdRequest -> InitProducerIdResponse;
    FindCoordinator 0 to 4, FindCoordinatorRequest -> FindCoordinatorResponse;
    JoinGroup 0 to 9, JoinGroupRequest -> JoinGroupResponse;
    SyncGroup 0 to 5, SyncGroupRequest -> SyncGroupResponse;
    Heartbeat 0 to 4, HeartbeatRequest -> HeartbeatResponse;
    LeaveGroup 0 to 5, LeaveGroupRequest -> LeaveGroupResponse;
    OffsetCommit 2 to 8, OffsetCommitRequest -> OffsetCommitResponse;
    OffsetFetch 1 to 8, OffsetFetchRequest -> OffsetFetchResponse;
    DescribeGroups 0 to 5, DescribeGroupsRequest -> DescribeGroupsResponse;
    ListGroups 0 to 5, ListGroupsRequest -> ListGroupsResponse;
    DeleteGroups 0 to 2, DeleteGroupsRequest -> DeleteGroupsResponse;
    CreateTopics 2 to 6, CreateTopicsRequest -> CreateTopicsResponse;
    DeleteTopics 1 to 5, DeleteTopicsRequest -> DeleteTopicsResponse;
    DescribeConfigs 1 to 4, DescribeConfigsRequest -> DescribeConfigsResponse;
}

/// Who asks, and in which version the answer is due.
#[derive(Clone, Debug)]
pub struct Head {
    pub api: Api,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<StrBytes>,
}

/// What a frame turned out to be.
#[derive(Clone, Debug)]
pub enum Decoded {
    Request(Head, Box<Request>),
    /// ApiVersions in a version nobody here speaks: the answer is version 0 with UNSUPPORTED_VERSION, so that the
    /// client learns what to ask for (KIP-511).
    UnsupportedApiVersions {
        correlation_id: i32,
    },
}

/// A response that does not fit the version of its request: a fault of this crate, tested for every version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("response to {api} version {version} cannot be encoded: {reason}")]
pub struct Unencodable {
    pub api: &'static str,
    pub version: i16,
    pub reason: String,
}

impl Api {
    fn of(key: i16) -> Result<Api, Malformed> {
        let known = Api::ALL.iter().find(|api| api.key() as i16 == key);
        known.copied().ok_or(Malformed::UnknownApi { key })
    }

    /// The number of this API on the wire.
    pub fn number(self) -> i16 {
        self.key() as i16
    }

    /// First version with compact strings and tagged fields.
    pub(super) fn is_flexible(self, version: i16) -> bool {
        self.key().request_header_version(version) >= 2
    }
}

/// Reads one frame. Key, version and correlation id stand at the same place in every header version.
pub fn decode(mut frame: Bytes) -> Result<Decoded, Malformed> {
    let head: &[u8; 8] = frame.first_chunk().ok_or(Malformed::Short { bytes: frame.len() })?;
    let [k0, k1, v0, v1, c @ ..] = *head;
    let (api, version) = (Api::of(i16::from_be_bytes([k0, k1]))?, i16::from_be_bytes([v0, v1]));
    let (min, max) = api.versions();
    if !(min..=max).contains(&version) {
        return match api {
            Api::ApiVersions => Ok(Decoded::UnsupportedApiVersions { correlation_id: i32::from_be_bytes(c) }),
            _ => Err(Malformed::UnknownVersion { api: api.name(), version, min, max }),
        };
    }
    let schema = |reason: String| Malformed::Schema { api: api.name(), version, reason };
    let header = RequestHeader::decode(&mut frame, api.key().request_header_version(version))
        .map_err(|e| schema(e.to_string()))?;
    shape::check(api, version, &frame).map_err(|e| schema(e.to_string()))?;
    let request = api.decode(frame, version).map_err(schema)?;
    let head = Head { api, version, correlation_id: header.correlation_id, client_id: header.client_id };
    Ok(Decoded::Request(head, Box::new(request)))
}

/// A whole response frame, length included.
pub fn encode(correlation_id: i32, version: i16, response: &Response) -> Result<Bytes, Unencodable> {
    let api = response.api();
    let mut buffer = BytesMut::new();
    buffer.put_i32(0);
    ResponseHeader::default()
        .with_correlation_id(correlation_id)
        .encode(&mut buffer, api.key().response_header_version(version))
        .map_err(|e| Unencodable { api: api.name(), version, reason: e.to_string() })?;
    response.encode_body(&mut buffer, version)?;
    let length = (buffer.len() - frame::PREFIX_BYTES) as u32;
    buffer[..frame::PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(buffer.freeze())
}
