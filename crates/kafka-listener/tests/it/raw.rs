//! A client that speaks frames, for what librdkafka would never do.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{
    ApiKey, GroupId, JoinGroupRequest, JoinGroupResponse, RequestHeader, ResponseHeader, SyncGroupRequest,
    SyncGroupResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::broker::PATIENCE;

pub struct RawClient<S = TcpStream> {
    pub stream: S,
    correlation_id: i32,
}

/// A request as it goes over the wire, length included.
pub fn frame<R: Request>(correlation_id: i32, version: i16, request: &R) -> Bytes {
    let mut body = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("raw")));
    header.encode(&mut body, R::header_version(version)).expect("fits");
    request.encode(&mut body, version).expect("fits");
    let mut frame = BytesMut::new();
    frame.put_u32(body.len() as u32);
    frame.extend_from_slice(&body);
    frame.freeze()
}

impl RawClient {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("connects"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawClient<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, correlation_id: 0 }
    }

    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.correlation_id += 1;
        self.stream.write_all(&frame(self.correlation_id, version, request)).await.expect("written");
        let mut answer = self.receive().await.expect("an answer");
        let api = ApiKey::try_from(R::KEY).expect("an api of Kafka");
        let header = ResponseHeader::decode(&mut answer, api.response_header_version(version)).expect("a header");
        assert_eq!(header.correlation_id, self.correlation_id);
        let response = R::Response::decode(&mut answer, version).expect("a response");
        assert!(!answer.has_remaining(), "{} bytes are left over", answer.len());
        response
    }

    /// The next frame; `None`: the listener has closed.
    pub async fn receive(&mut self) -> Option<Bytes> {
        let read = async {
            let length = self.stream.read_u32().await.ok()?;
            let mut body = vec![0; length as usize];
            self.stream.read_exact(&mut body).await.ok()?;
            Some(body.into())
        };
        tokio::time::timeout(PATIENCE, read).await.expect("an answer or the end in time")
    }

    /// Joins `group` with this subscription, and waits for the generation that begins with it.
    pub async fn join(&mut self, group: &str, session_timeout_ms: i32, subscription: Bytes) -> JoinGroupResponse {
        let protocol = |name| {
            let protocol = JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str(name));
            protocol.with_metadata(subscription.clone())
        };
        let join = JoinGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_session_timeout_ms(session_timeout_ms)
            .with_rebalance_timeout_ms(30_000)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol("range"), protocol("roundrobin")]);
        self.call(3, &join).await
    }

    /// Joins `group` as a follower and takes its share of `topic`.
    pub async fn take_share(&mut self, group: &str, topic: &str) -> Bytes {
        let mut subscription = BytesMut::new();
        subscription.put_i16(0);
        subscription.put_i32(1);
        subscription.put_i16(topic.len() as i16);
        subscription.put_slice(topic.as_bytes());
        subscription.put_i32(-1);
        let joined = self.join(group, 3_000, subscription.freeze()).await;
        assert_eq!((joined.error_code, joined.members.len()), (0, 0), "a follower");
        let sync = SyncGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id);
        let synced: SyncGroupResponse = self.call(2, &sync).await;
        assert_eq!(synced.error_code, 0);
        synced.assignment
    }
}
