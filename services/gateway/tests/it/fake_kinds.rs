//! Device types and groups in memory, behind the real gRPC code.

use std::collections::BTreeMap;
use std::sync::Mutex;

use drover_proto::registry::v1::device_groups_server::DeviceGroups;
use drover_proto::registry::v1::device_types_server::DeviceTypes;
use drover_proto::registry::v1::*;
use drover_proto::to_status;
use drover_proto::types::v1::{DeviceGroup, DeviceType, Meta};
use drover_types::{ApiError, ErrorCode};
use tonic::{Request, Response, Status};

type Key = (String, String);
type Answer<T> = Result<Response<T>, Status>;

fn missing(what: &str, name: &str) -> Status {
    to_status(&ApiError::new(ErrorCode::NotFound, format!("{what} {name} does not exist")))
}

fn kept(meta: Option<Meta>) -> Meta {
    Meta { generation: 1, revision: 1, created_ms: 1_700_000_000_000, ..meta.unwrap_or_default() }
}

/// By tenant and name.
#[derive(Default)]
pub struct FakeTypes(Mutex<BTreeMap<Key, DeviceType>>);

#[tonic::async_trait]
impl DeviceTypes for FakeTypes {
    async fn put_device_type(&self, request: Request<PutDeviceTypeRequest>) -> Answer<PutDeviceTypeResponse> {
        let mut device_type = request.into_inner().device_type.unwrap_or_default();
        let meta = kept(device_type.meta.take());
        device_type.meta = Some(meta.clone());
        self.0.lock().unwrap().insert((meta.tenant, meta.name), device_type.clone());
        Ok(Response::new(PutDeviceTypeResponse { device_type: Some(device_type) }))
    }

    async fn get_device_type(&self, request: Request<GetDeviceTypeRequest>) -> Answer<GetDeviceTypeResponse> {
        let GetDeviceTypeRequest { tenant, name } = request.into_inner();
        let found = self.0.lock().unwrap().get(&(tenant, name.clone())).cloned();
        Ok(Response::new(GetDeviceTypeResponse { device_type: Some(found.ok_or_else(|| missing("type", &name))?) }))
    }

    async fn list_device_types(&self, request: Request<ListDeviceTypesRequest>) -> Answer<ListDeviceTypesResponse> {
        let tenant = request.into_inner().tenant;
        let all = self.0.lock().unwrap();
        let of_tenant = all.iter().filter(|((owner, _), _)| *owner == tenant);
        let device_types = of_tenant.map(|(_, device_type)| device_type.clone()).collect();
        Ok(Response::new(ListDeviceTypesResponse { device_types, next_page_token: String::new() }))
    }

    async fn delete_device_type(&self, request: Request<DeleteDeviceTypeRequest>) -> Answer<DeleteDeviceTypeResponse> {
        let DeleteDeviceTypeRequest { tenant, name } = request.into_inner();
        let removed = self.0.lock().unwrap().remove(&(tenant, name.clone()));
        removed.map(|_| Response::new(DeleteDeviceTypeResponse {})).ok_or_else(|| missing("type", &name))
    }
}

/// By tenant and name.
#[derive(Default)]
pub struct FakeGroups(Mutex<BTreeMap<Key, DeviceGroup>>);

#[tonic::async_trait]
impl DeviceGroups for FakeGroups {
    async fn put_device_group(&self, request: Request<PutDeviceGroupRequest>) -> Answer<PutDeviceGroupResponse> {
        let mut group = request.into_inner().device_group.unwrap_or_default();
        let meta = kept(group.meta.take());
        group.meta = Some(meta.clone());
        self.0.lock().unwrap().insert((meta.tenant, meta.name), group.clone());
        Ok(Response::new(PutDeviceGroupResponse { device_group: Some(group) }))
    }

    async fn get_device_group(&self, request: Request<GetDeviceGroupRequest>) -> Answer<GetDeviceGroupResponse> {
        let GetDeviceGroupRequest { tenant, name } = request.into_inner();
        let found = self.0.lock().unwrap().get(&(tenant, name.clone())).cloned();
        Ok(Response::new(GetDeviceGroupResponse { device_group: Some(found.ok_or_else(|| missing("group", &name))?) }))
    }

    async fn list_device_groups(&self, request: Request<ListDeviceGroupsRequest>) -> Answer<ListDeviceGroupsResponse> {
        let tenant = request.into_inner().tenant;
        let all = self.0.lock().unwrap();
        let of_tenant = all.iter().filter(|((owner, _), _)| *owner == tenant);
        let device_groups = of_tenant.map(|(_, group)| group.clone()).collect();
        Ok(Response::new(ListDeviceGroupsResponse { device_groups, next_page_token: String::new() }))
    }

    async fn delete_device_group(
        &self,
        request: Request<DeleteDeviceGroupRequest>,
    ) -> Answer<DeleteDeviceGroupResponse> {
        let DeleteDeviceGroupRequest { tenant, name } = request.into_inner();
        let removed = self.0.lock().unwrap().remove(&(tenant, name.clone()));
        removed.map(|_| Response::new(DeleteDeviceGroupResponse {})).ok_or_else(|| missing("group", &name))
    }
}
