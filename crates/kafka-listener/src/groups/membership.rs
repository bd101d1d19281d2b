//! FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup.
//!
//! Adapter layer: between the wire and the state machine, without decisions.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator as Found;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::check_name;
use super::exchange::{Answer, Identity, Join, Joined, Refused, Sync, Synced};
use super::member::Protocol;
use crate::dispatch::{Listener, Peer};
use crate::metadata::BROKER;
use crate::refusal;
use crate::wire::api::Head;

/// Kinds of coordinators, by Kafka's numbers.
const GROUP_KEY: i8 = 0;
const TRANSACTION_KEY: i8 = 1;

/// It is always this broker; transactions have none.
pub fn find_coordinator(peer: &Peer, version: i16, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let error = match request.key_type {
        GROUP_KEY => None,
        TRANSACTION_KEY => {
            tracing::warn!(remote = %peer.remote, "kafka client refused: transactional ids are not served");
            Some(ResponseError::TransactionalIdAuthorizationFailed)
        }
        _ => Some(ResponseError::InvalidRequest),
    };
    let code = error.as_ref().map_or(0, ResponseError::code);
    let port = i32::from(peer.port);
    if version < 4 {
        let response = FindCoordinatorResponse::default().with_error_code(code);
        return response.with_node_id(BROKER).with_host(peer.host.clone()).with_port(port);
    }
    let found = request.coordinator_keys.into_iter().map(|key| {
        let found = Found::default().with_key(key).with_error_code(code);
        found.with_node_id(BROKER).with_host(peer.host.clone()).with_port(port)
    });
    FindCoordinatorResponse::default().with_coordinators(found.collect())
}

/// Joins, and waits for the next generation.
pub async fn join(listener: &Listener, peer: &Peer, head: &Head, request: JoinGroupRequest) -> JoinGroupResponse {
    joined(head.version, try_join(listener, peer, head, &request).await)
}

async fn try_join(
    listener: &Listener,
    peer: &Peer,
    head: &Head,
    request: &JoinGroupRequest,
) -> Result<Joined, Refused> {
    let group = request.group_id.as_str();
    let refused = |error| Refused { error, member: request.member_id.to_string() };
    check_name(group, peer).map_err(refused)?;
    listener.retention.joined(group);
    let waiting = listener.coordinator.join(group, join_of(listener, peer, head, request)).map_err(|error| {
        tracing::warn!(%error, group, remote = %peer.remote, "kafka client could not join");
        refused(ResponseError::CoordinatorNotAvailable)
    })?;
    match waiting.await {
        Ok(Answer::Join(_, answer)) => answer,
        Ok(Answer::Sync(..)) | Err(_) => Err(refused(ResponseError::CoordinatorNotAvailable)),
    }
}

fn join_of(listener: &Listener, peer: &Peer, head: &Head, request: &JoinGroupRequest) -> Join {
    let ms = |ms: i32| u64::try_from(ms).unwrap_or(0);
    let client = head.client_id.as_deref().unwrap_or_default();
    let protocols = request.protocols.iter();
    Join {
        ticket: listener.coordinator.ticket(),
        who: identity(&request.member_id, request.group_instance_id.as_ref()),
        fresh_id: fresh_id(request.group_instance_id.as_deref().unwrap_or(client)),
        id_first: head.version >= 4,
        session_timeout_ms: ms(request.session_timeout_ms),
        rebalance_timeout_ms: ms(if head.version >= 1 {
            request.rebalance_timeout_ms
        } else {
            request.session_timeout_ms
        }),
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.map(|p| Protocol { name: p.name.to_string(), metadata: p.metadata.clone() }).collect(),
        client_id: client.to_owned(),
        client_host: format!("/{}", peer.remote.ip().to_canonical()),
    }
}

fn identity(member: &StrBytes, instance: Option<&StrBytes>) -> Identity {
    Identity { member: member.to_string(), instance: instance.map(StrBytes::to_string) }
}

/// The client's name and 128 random bits.
fn fresh_id(name: &str) -> String {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the operating system has random bytes");
    format!("{name}-{:032x}", u128::from_be_bytes(random))
}

fn joined(version: i16, answer: Result<Joined, Refused>) -> JoinGroupResponse {
    let text = StrBytes::from_string;
    let response = JoinGroupResponse::default();
    match answer {
        Ok(joined) => {
            let members = joined.members.into_iter().map(|(who, metadata)| {
                let member =
                    JoinGroupResponseMember::default().with_member_id(text(who.member)).with_metadata(metadata);
                member.with_group_instance_id(who.instance.filter(|_| version >= 5).map(text))
            });
            // Clients older than KIP-814 would assign anew if they heard that they lead.
            let is_spared = joined.skip_assignment && version < 9;
            let leader = if is_spared { String::new() } else { joined.leader };
            response
                .with_generation_id(joined.generation)
                .with_protocol_type((version >= 7).then(|| text(joined.protocol_type)))
                .with_protocol_name(Some(text(joined.protocol)))
                .with_leader(text(leader))
                .with_skip_assignment(joined.skip_assignment && version >= 9)
                .with_member_id(text(joined.member))
                .with_members(if is_spared { Vec::new() } else { members.collect() })
        }
        Err(Refused { error, member }) => response
            .with_error_code(error.code())
            .with_generation_id(-1)
            .with_protocol_name((version < 7).then(StrBytes::default))
            .with_member_id(text(member)),
    }
}

/// Waits for the leader's assignment.
pub async fn sync(listener: &Listener, request: SyncGroupRequest) -> SyncGroupResponse {
    let assignments = request.assignments.into_iter();
    let sync = Sync {
        ticket: listener.coordinator.ticket(),
        who: identity(&request.member_id, request.group_instance_id.as_ref()),
        generation: request.generation_id,
        protocol_type: request.protocol_type.map(|t| t.to_string()),
        protocol: request.protocol_name.map(|p| p.to_string()),
        assignments: assignments.map(|a| (a.member_id.to_string(), a.assignment)).collect(),
    };
    let answer = match listener.coordinator.sync(&request.group_id, sync) {
        None => Err(ResponseError::UnknownMemberId),
        Some(answer) => match answer.await {
            Ok(Answer::Sync(_, answer)) => answer,
            Ok(Answer::Join(..)) | Err(_) => Err(ResponseError::CoordinatorNotAvailable),
        },
    };
    match answer {
        Ok(Synced { protocol_type, protocol, assignment }) => SyncGroupResponse::default()
            .with_protocol_type(Some(StrBytes::from_string(protocol_type)))
            .with_protocol_name(Some(StrBytes::from_string(protocol)))
            .with_assignment(assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
    }
}

/// A sign of life.
pub fn heartbeat(listener: &Listener, request: &HeartbeatRequest) -> HeartbeatResponse {
    let who = identity(&request.member_id, request.group_instance_id.as_ref());
    let beat = listener
        .coordinator
        .act(&request.group_id, |group, now_ms| (group.heartbeat(now_ms, &who, request.generation_id), Vec::new()));
    HeartbeatResponse::default().with_error_code(refusal::code(&beat.unwrap_or(Err(ResponseError::UnknownMemberId))))
}

/// One member goes, or (since version 3) several.
pub fn leave(listener: &Listener, version: i16, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let leave = |who: &Identity| {
        let left = listener.coordinator.act(&request.group_id, |group, now_ms| group.leave(now_ms, who));
        refusal::code(&left.unwrap_or(Err(ResponseError::UnknownMemberId)))
    };
    if version < 3 {
        return LeaveGroupResponse::default().with_error_code(leave(&identity(&request.member_id, None)));
    }
    let members = request.members.iter().map(|member| {
        let code = leave(&identity(&member.member_id, member.group_instance_id.as_ref()));
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code)
    });
    LeaveGroupResponse::default().with_members(members.collect())
}
