//! DescribeGroups, ListGroups, DeleteGroups.
//!
//! Adapter layer. A group is known while it has members or committed offsets.

use std::collections::BTreeMap;

use drover_bus::embedded::EmbeddedBus;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    ListGroupsRequest, ListGroupsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::check_name;
use super::member::Member;
use super::state::Group;
use crate::dispatch::{Listener, Peer};
use crate::refusal;

/// What groups are for whose members have gone.
const CONSUMER: &str = "consumer";
const EMPTY: &str = "Empty";
const DEAD: &str = "Dead";
/// The kind of all groups here, as opposed to those of KIP-848.
const CLASSIC: &str = "classic";

/// Members and assignments of groups.
pub async fn describe(listener: &Listener, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let stored = groups_with_offsets(&listener.bus);
    let groups = request.groups.into_iter().map(|id| {
        let live = listener.coordinator.act(&id, |group, _| (describe_live(group), Vec::new()));
        let described = live.unwrap_or_else(|| {
            let state = if stored.iter().any(|name| *name == **id) { EMPTY } else { DEAD };
            let kind = if state == EMPTY { CONSUMER } else { "" };
            DescribedGroup::default().with_group_state(state.into()).with_protocol_type(kind.into())
        });
        described.with_group_id(id)
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn describe_live(group: &Group) -> DescribedGroup {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let member = |member: &Member| {
        DescribedGroupMember::default()
            .with_member_id(text(&member.identity.member))
            .with_group_instance_id(member.identity.instance.as_deref().map(text))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(member.metadata_of(group.protocol()).cloned().unwrap_or_default())
            .with_member_assignment(member.assignment.clone())
    };
    DescribedGroup::default()
        .with_group_state(group.state().into())
        .with_protocol_type(text(group.protocol_type()))
        .with_protocol_data(text(group.protocol()))
        .with_members(group.members().map(member).collect())
}

/// All groups, those of the platform included; filtered by state (since version 4) and kind (since version 5).
pub async fn list(listener: &Listener, version: i16, request: ListGroupsRequest) -> ListGroupsResponse {
    let live =
        listener.coordinator.survey(|name, group| (name.to_owned(), (group.state(), group.protocol_type().to_owned())));
    let stored = groups_with_offsets(&listener.bus).into_iter().map(|name| (name, (EMPTY, CONSUMER.to_owned())));
    let all: BTreeMap<String, (&'static str, String)> = stored.chain(live).collect();
    let is_asked =
        |filter: &[StrBytes], value: &str| filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(value));
    let listed = all.into_iter().filter(|(_, (state, _))| is_asked(&request.states_filter, state));
    let listed = listed.filter(|_| is_asked(&request.types_filter, CLASSIC)).map(|(name, (state, kind))| {
        ListedGroup::default()
            .with_group_id(GroupId(StrBytes::from_string(name)))
            .with_protocol_type(StrBytes::from_string(kind))
            .with_group_state(if version >= 4 { state.into() } else { StrBytes::default() })
            .with_group_type(if version >= 5 { CLASSIC.into() } else { StrBytes::default() })
    });
    ListGroupsResponse::default().with_groups(listed.collect())
}

/// Forgets the committed offsets of groups without members.
pub async fn delete(listener: &Listener, peer: &Peer, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for id in request.groups_names {
        let deleted = delete_one(listener, peer, &id).await;
        results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(refusal::code(&deleted)));
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete_one(listener: &Listener, peer: &Peer, group: &str) -> Result<(), ResponseError> {
    check_name(group, peer)?;
    if !peer.principal.may_write() {
        return Err(ResponseError::GroupAuthorizationFailed);
    }
    if listener.coordinator.act(group, |group, _| (group.is_vacant(), Vec::new())) == Some(false) {
        return Err(ResponseError::NonEmptyGroup);
    }
    if !groups_with_offsets(&listener.bus).iter().any(|name| name == group) {
        return Err(ResponseError::GroupIdNotFound);
    }
    listener.bus.delete_group(group).await.map_err(|_| ResponseError::CoordinatorNotAvailable)
}

fn groups_with_offsets(bus: &EmbeddedBus) -> Vec<String> {
    bus.groups()
}
