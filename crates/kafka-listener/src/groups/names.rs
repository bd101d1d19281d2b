//! What a tenant calls its groups, and what they are kept as: `TENANT/GROUP`, so that those of two tenants never meet. The
//! administrator calls all groups as they are kept.
//!
//! Adapter layer: names are changed on the way in and on the way out, and nobody in between knows.

use kafka_protocol::messages::GroupId;
use kafka_protocol::protocol::StrBytes;

use crate::ports::Principal;
use crate::wire::api::{Request, Response};

/// Between a tenant and a name; no tenant has it.
const SEPARATOR: char = '/';

/// Makes the names of groups in a request those that are kept. An empty one stays: it is no group's.
pub fn inward(principal: &Principal, request: &mut Request) {
    let Principal::Tenant { tenant, .. } = principal else { return };
    let keep = |group: &mut GroupId| {
        if !group.is_empty() {
            *group = GroupId(StrBytes::from_string(format!("{tenant}{SEPARATOR}{}", group.as_str())));
        }
    };
    match request {
        Request::JoinGroup(r) => keep(&mut r.group_id),
        Request::SyncGroup(r) => keep(&mut r.group_id),
        Request::Heartbeat(r) => keep(&mut r.group_id),
        Request::LeaveGroup(r) => keep(&mut r.group_id),
        Request::OffsetCommit(r) => keep(&mut r.group_id),
        Request::OffsetFetch(r) => {
            keep(&mut r.group_id);
            r.groups.iter_mut().for_each(|group| keep(&mut group.group_id));
        }
        Request::DescribeGroups(r) => r.groups.iter_mut().for_each(keep),
        Request::DeleteGroups(r) => r.groups_names.iter_mut().for_each(keep),
        // All are asked for, or the one coordinator of all.
        Request::ListGroups(_) | Request::FindCoordinator(_) => {}
        Request::ApiVersions(_)
        | Request::SaslHandshake(_)
        | Request::SaslAuthenticate(_)
        | Request::Metadata(_)
        | Request::DescribeCluster(_)
        | Request::ListOffsets(_)
        | Request::OffsetForLeaderEpoch(_)
        | Request::Fetch(_)
        | Request::Produce(_)
        | Request::InitProducerId(_)
        | Request::CreateTopics(_)
        | Request::DeleteTopics(_)
        | Request::DescribeConfigs(_) => {}
    }
}

/// Makes the names of groups in a response those of the tenant, and leaves out the groups of others.
pub fn outward(principal: &Principal, response: &mut Response) {
    let Principal::Tenant { tenant, .. } = principal else { return };
    let own = |group: &GroupId| -> Option<String> {
        let name = group.strip_prefix(tenant.as_str())?.strip_prefix(SEPARATOR)?;
        Some(name.to_owned())
    };
    let tell = |group: &mut GroupId| {
        if let Some(name) = own(group) {
            *group = GroupId(StrBytes::from_string(name));
        }
    };
    match response {
        Response::OffsetFetch(r) => r.groups.iter_mut().for_each(|group| tell(&mut group.group_id)),
        Response::DescribeGroups(r) => r.groups.iter_mut().for_each(|group| tell(&mut group.group_id)),
        Response::DeleteGroups(r) => r.results.iter_mut().for_each(|result| tell(&mut result.group_id)),
        Response::ListGroups(r) => {
            r.groups.retain(|group| own(&group.group_id).is_some());
            r.groups.iter_mut().for_each(|group| tell(&mut group.group_id));
        }
        Response::ApiVersions(_)
        | Response::SaslHandshake(_)
        | Response::SaslAuthenticate(_)
        | Response::Metadata(_)
        | Response::DescribeCluster(_)
        | Response::ListOffsets(_)
        | Response::OffsetForLeaderEpoch(_)
        | Response::Fetch(_)
        | Response::Produce(_)
        | Response::InitProducerId(_)
        | Response::FindCoordinator(_)
        | Response::JoinGroup(_)
        | Response::SyncGroup(_)
        | Response::Heartbeat(_)
        | Response::LeaveGroup(_)
        | Response::OffsetCommit(_)
        | Response::CreateTopics(_)
        | Response::DeleteTopics(_)
        | Response::DescribeConfigs(_) => {}
    }
}
