//! The ingress as other services and other ingress nodes see it: publish on behalf of a rule, deliver what another
//! service or node has logged, revoke, take over.

use std::sync::Arc;

use drover_host::grpc::Routes;
use drover_proto::ingress::v1::ingress_server::{Ingress, IngressServer};
use drover_proto::ingress::v1::{
    ClaimRequest, ClaimResponse, DeliverRequest, DeliverResponse, FlushRequest, FlushResponse, ForwardRequest,
    ForwardResponse, ForwardedMessage, IdentifyRequest, IdentifyResponse, InheritRequest, InheritResponse,
    PublishRequest, PublishResponse, RefusedShare, RevokeRequest, RevokeResponse, TakeOverRequest, TakeOverResponse,
};
use drover_proto::to_status;
use drover_types::limits::{DELIVERY_BYTES_MAX, PAYLOAD_BYTES_MAX, REPUBLISH_HOPS_MAX};
use drover_types::{
    ApiError, ClientId, DeviceId, ErrorCode, Qos, RecordId, Telemetry, TenantId, TopicName, TraceParent,
};
use tonic::{Request, Response, Status};

use crate::domain::message::{Message, PLATFORM};
use crate::domain::node::{Node, Recipient};
use crate::domain::peers::BATCH_MESSAGES_MAX;
use crate::domain::revocations::{Revocation, Whose};
use crate::domain::shares::Share;
use crate::ports::{Claimed, Heir};
use crate::server::traced;
use crate::wire;

/// Most nodes that a request names.
const NODES_MAX: usize = 1_024;

struct Server {
    node: Arc<Node>,
    boot: u32,
}

impl Server {
    /// Refuses what is for other nodes, or of them, before the stores of this one are there: whoever asks comes again.
    fn check_admits(&self) -> Result<(), ApiError> {
        if self.node.peers.admits() {
            return Ok(());
        }
        Err(ApiError::new(ErrorCode::Unavailable, "the node waits for its stores"))
    }

    /// Refuses to take sessions of others where they are not shared.
    fn check_inherits(&self) -> Result<(), ApiError> {
        if self.node.journal.store().is_shared() {
            return Ok(());
        }
        let message = "sessions are not shared here (ingress.store.kind)";
        Err(ApiError::new(ErrorCode::FailedPrecondition, message))
    }
}

/// The service's routes; `boot` is the number of this start of the node.
pub fn routes(node: Arc<Node>, boot: u32) -> Routes {
    Routes::new(IngressServer::new(Server { node, boot }))
}

#[tonic::async_trait]
impl Ingress for Server {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        self.check_admits().map_err(|e| to_status(&e))?;
        let received = read(request.into_inner(), PAYLOAD_BYTES_MAX, self.node.now().unix_ms);
        let mut message = received.map_err(|e| to_status(&e))?;
        self.node.check_topic(&message.telemetry.topic).map_err(|e| to_status(&e))?;
        continue_trace(&mut message);
        let stored = self.node.publish(Arc::new(message)).await;
        stored.map_err(|e| to_status(&ApiError::new(ErrorCode::Unavailable, e.to_string())))?;
        Ok(Response::new(PublishResponse {}))
    }

    async fn deliver(&self, request: Request<DeliverRequest>) -> Result<Response<DeliverResponse>, Status> {
        let now = self.node.now().unix_ms;
        let (message, recipient) = read_delivery(request.into_inner(), now).map_err(|e| to_status(&e))?;
        let delivered = self.node.deliver_kept(&[Arc::new(message)], &recipient).await;
        Ok(Response::new(DeliverResponse { delivered: u32::try_from(delivered).unwrap_or(u32::MAX) }))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let request = request.into_inner();
        let tenant =
            TenantId::new(&request.tenant).map_err(|e| to_status(&ApiError::invalid("tenant", e.to_string())))?;
        let whose = match (request.anonymous, request.credential_id) {
            (true, _) => Whose::Anonymous,
            (false, id) if id.is_empty() => Whose::All,
            (false, id) => Whose::Credential(id),
        };
        let links = self.node.revoke(Revocation { tenant, device: request.device, whose });
        for link in &links {
            link.closed().await;
        }
        Ok(Response::new(RevokeResponse { closed: u32::try_from(links.len()).unwrap_or(u32::MAX) }))
    }

    async fn take_over(&self, request: Request<TakeOverRequest>) -> Result<Response<TakeOverResponse>, Status> {
        let TakeOverRequest { tenant, client, epoch } = request.into_inner();
        let invalid = |field: &'static str, reason: String| to_status(&ApiError::invalid(field, reason));
        let tenant = TenantId::new(&tenant).map_err(|e| invalid("tenant", e.to_string()))?;
        let client = ClientId::new(&client).map_err(|e| invalid("client", e.to_string()))?;
        let newer_epoch = self.node.give_up(&(tenant, client), epoch).await;
        Ok(Response::new(TakeOverResponse { newer_epoch: newer_epoch.unwrap_or_default() }))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<ForwardResponse>, Status> {
        let ForwardRequest { node, boot, sequence, hello, messages, interest, groups } = request.into_inner();
        self.check_admits().map_err(|e| to_status(&e))?;
        let (messages, shares) = read_all(messages).map_err(|e| to_status(&e))?;
        let news = wire::read_news(interest.unwrap_or_default()).map_err(|e| to_status(&e))?;
        let groups = groups.map(wire::read_groups).transpose().map_err(|e| to_status(&e))?;
        let whole = self.node.peers.hear(&node, boot, news);
        if let Some(groups) = groups {
            self.node.peers.groups.hear(&node, groups);
        }
        let starting = self.node.peers.is_starting();
        let mut refused = Vec::new();
        if !messages.is_empty() && !starting {
            refused = self.node.take_batch((node.as_str(), boot), sequence, &messages, &shares).await;
        } // else the sender keeps them, and comes again
        if hello {
            self.node.peers.introduced(&node).await;
        }
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let refused = refused
            .into_iter()
            .map(|refused| RefusedShare { message: number(refused.message), share: number(refused.share) });
        Ok(Response::new(ForwardResponse {
            node: self.node.peers.node().to_owned(),
            gapped: !whole,
            boot: u64::from(self.boot),
            refused: refused.collect(),
            completed: self.node.peers.taken.completed(&node, boot),
            starting,
        }))
    }

    async fn claim(&self, request: Request<ClaimRequest>) -> Result<Response<ClaimResponse>, Status> {
        let ClaimRequest { gone, live } = request.into_inner();
        if live.len() > NODES_MAX {
            let error = ApiError::invalid("live", "too many nodes").over(NODES_MAX, live.len());
            return Err(to_status(&error));
        }
        self.check_inherits().map_err(|e| to_status(&e))?;
        let claimed = self.node.claim(&gone, &live).await;
        let claimed = claimed.map_err(|reason| to_status(&ApiError::new(ErrorCode::Unavailable, reason)))?;
        Ok(Response::new(ClaimResponse { returned: claimed == Claimed::Returned }))
    }

    async fn inherit(&self, request: Request<InheritRequest>) -> Result<Response<InheritResponse>, Status> {
        let (messages, _) = read_all(request.into_inner().messages).map_err(|e| to_status(&e))?;
        self.check_inherits().map_err(|e| to_status(&e))?;
        let inherited = self.node.inherit(&messages).await;
        inherited.map_err(|reason| to_status(&ApiError::new(ErrorCode::Unavailable, reason)))?;
        Ok(Response::new(InheritResponse {}))
    }

    async fn flush(&self, _: Request<FlushRequest>) -> Result<Response<FlushResponse>, Status> {
        self.node.peers.flushed().await;
        Ok(Response::new(FlushResponse {}))
    }

    async fn identify(&self, _: Request<IdentifyRequest>) -> Result<Response<IdentifyResponse>, Status> {
        let (node, boot) = (self.node.peers.node().to_owned(), u64::from(self.boot));
        Ok(Response::new(IdentifyResponse { node, boot }))
    }
}

/// Messages of another node, and for which shared subscriptions a member is to be given each of them.
type Forwarded = (Vec<Arc<Message>>, Vec<Vec<Share>>);

fn read_all(mut messages: Vec<ForwardedMessage>) -> Result<Forwarded, ApiError> {
    if messages.len() > BATCH_MESSAGES_MAX {
        return Err(ApiError::invalid("messages", "too many messages").over(BATCH_MESSAGES_MAX, messages.len()));
    }
    let shares = messages.iter_mut().map(wire::read_shares).collect::<Result<_, _>>()?;
    let messages = messages.into_iter().map(|message| wire::read(message).map(Arc::new)).collect::<Result<_, _>>()?;
    Ok((messages, shares))
}

/// A span of the message below that of the rule that made it, while this process takes part in a trace.
fn continue_trace(message: &mut Message) {
    let Telemetry { device, topic, traceparent, .. } = &mut message.telemetry;
    *traceparent = traced::publish(device, topic.as_str(), traceparent.take());
}

/// The message a request asks for. Its id is its fingerprint, and it says that it may be a repeat: whoever asks again
/// makes a record that every reader recognises.
fn read(request: PublishRequest, payload_bytes_max: usize, now_ms: u64) -> Result<Message, ApiError> {
    let invalid = |field: &'static str, reason: String| ApiError::invalid(field, reason);
    let id: [u8; 16] = request
        .id
        .as_slice()
        .try_into()
        .map_err(|_| ApiError::invalid("id", "an id has 16 bytes").over(16, request.id.len()))?;
    if request.payload.len() > payload_bytes_max {
        return Err(ApiError::invalid("payload", "payload is too large").over(payload_bytes_max, request.payload.len()));
    }
    if request.hops > REPUBLISH_HOPS_MAX {
        return Err(ApiError::invalid("hops", "too many hops").over(REPUBLISH_HOPS_MAX, request.hops));
    }
    let qos = u8::try_from(request.qos).ok().and_then(|qos| Qos::try_from(qos).ok());
    let qos = qos.filter(|qos| *qos <= Qos::AtLeastOnce);
    let telemetry = Telemetry {
        id: RecordId(id),
        tenant: TenantId::new(&request.tenant).map_err(|e| invalid("tenant", e.to_string()))?,
        device: DeviceId::new(&request.device).map_err(|e| invalid("device", e.to_string()))?,
        client: ClientId::new(&request.client).map_err(|e| invalid("client", e.to_string()))?,
        topic: TopicName::new(&request.topic).map_err(|e| invalid("topic", e.to_string()))?,
        payload: request.payload.into(),
        qos: qos.ok_or_else(|| ApiError::invalid("qos", "qos is 0 or 1").over(1, request.qos))?,
        retain: false,
        dup: true,
        packet_id: None,
        epoch: 0,
        fingerprint: id,
        time_ms: now_ms,
        content_type: None,
        properties: Vec::new(),
        mqtt5: None,
        traceparent: TraceParent::parse(&request.traceparent),
        hops: request.hops,
    };
    Ok(Message { telemetry, properties: None })
}

/// The message to deliver, and to whom. It has its own log elsewhere: nobody asks for its id or fingerprint here.
fn read_delivery(request: DeliverRequest, now_ms: u64) -> Result<(Message, Recipient), ApiError> {
    let recipient = match request.client.as_str() {
        "" if request.epoch > 0 => return Err(ApiError::invalid("epoch", "an epoch is one of a client")),
        "" => Recipient::Subscribers,
        client => Recipient::Client {
            client: ClientId::new(client).map_err(|e| ApiError::invalid("client", e.to_string()))?,
            epoch: (request.epoch > 0).then_some(request.epoch),
        },
    };
    let message = read(
        PublishRequest {
            id: vec![0; 16],
            tenant: request.tenant,
            device: PLATFORM.to_owned(),
            client: PLATFORM.to_owned(),
            topic: request.topic,
            payload: request.payload,
            qos: request.qos,
            hops: 0,
            traceparent: String::new(),
        },
        DELIVERY_BYTES_MAX,
        now_ms,
    )?;
    Ok((message, recipient))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> PublishRequest {
        PublishRequest {
            id: vec![7; 16],
            tenant: "home".into(),
            device: "d".into(),
            client: "rule/r".into(),
            topic: "a/b".into(),
            payload: b"1".to_vec(),
            qos: 1,
            hops: 5,
            traceparent: String::new(),
        }
    }

    #[test]
    fn a_republished_message_is_recognised_when_it_comes_again() {
        let first = read(request(), PAYLOAD_BYTES_MAX, 1).expect("valid").telemetry;
        let again = read(request(), PAYLOAD_BYTES_MAX, 2).expect("valid").telemetry;
        assert!(first.dup && again.dup);
        assert_eq!((first.fingerprint, first.id), (again.fingerprint, again.id));
        assert_eq!((first.client.as_str(), first.hops), ("rule/r", 5));
    }

    #[test]
    fn a_delivery_is_for_all_subscribers_or_for_one_connection_of_a_client() {
        let delivery = |client: &str, epoch| {
            let request = DeliverRequest {
                tenant: "home".into(),
                topic: "$aws/things/d/shadow/get/accepted".into(),
                payload: b"{}".to_vec(),
                qos: 1,
                client: client.into(),
                epoch,
            };
            read_delivery(request, 0).map(|(_, recipient)| recipient).map_err(|e| e.field)
        };
        let client = ClientId::new("d").expect("valid");
        assert_eq!(delivery("", 0), Ok(Recipient::Subscribers));
        assert_eq!(delivery("d", 0), Ok(Recipient::Client { client: client.clone(), epoch: None }));
        assert_eq!(delivery("d", 7), Ok(Recipient::Client { client, epoch: Some(7) }));
        assert_eq!(delivery("", 7), Err(Some("epoch".into())));
    }

    #[test]
    fn what_is_wrong_with_a_request_is_named() {
        let refused = |change: fn(&mut PublishRequest)| {
            let mut request = request();
            change(&mut request);
            read(request, PAYLOAD_BYTES_MAX, 0).expect_err("refused").field.expect("a field")
        };
        assert_eq!(refused(|r| r.id = vec![0; 15]), "id");
        assert_eq!(refused(|r| r.tenant = "A".into()), "tenant");
        assert_eq!(refused(|r| r.device = "a/b".into()), "device");
        assert_eq!(refused(|r| r.client = String::new()), "client");
        assert_eq!(refused(|r| r.topic = "a/+".into()), "topic");
        assert_eq!(refused(|r| r.payload = vec![0; PAYLOAD_BYTES_MAX + 1]), "payload");
        assert_eq!(refused(|r| r.qos = 2), "qos");
        assert_eq!(refused(|r| r.hops = 6), "hops");
    }
}
