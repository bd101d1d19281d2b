//! Device types and groups.

use drover_proto::registry::v1::device_groups_server::DeviceGroups;
use drover_proto::registry::v1::device_types_server::DeviceTypes;
use drover_proto::registry::v1::*;
use drover_types::ApiError;
use tonic::{Request, Response, Status};

use super::{Server, decode, encode, in_the_name_of};

impl Server {
    async fn type_put(&self, request: PutDeviceTypeRequest) -> Result<PutDeviceTypeResponse, ApiError> {
        let kept = self.domain.put_device_type(decode::device_type(request.device_type.as_ref())?).await?;
        Ok(PutDeviceTypeResponse { device_type: Some(encode::device_type(kept)) })
    }

    async fn one_type(&self, request: GetDeviceTypeRequest) -> Result<GetDeviceTypeResponse, ApiError> {
        let found = self.domain.get_device_type(&decode::tenant(&request.tenant)?, &request.name).await?;
        Ok(GetDeviceTypeResponse { device_type: Some(encode::device_type(found)) })
    }

    async fn types(&self, request: ListDeviceTypesRequest) -> Result<ListDeviceTypesResponse, ApiError> {
        let page = decode::page(&request.tenant, request.page_size, request.page_token)?;
        let page = self.domain.list_device_types(&page).await?;
        let device_types = page.items.into_iter().map(encode::device_type).collect();
        Ok(ListDeviceTypesResponse { device_types, next_page_token: page.next })
    }

    async fn type_deleted(&self, request: DeleteDeviceTypeRequest) -> Result<DeleteDeviceTypeResponse, ApiError> {
        self.domain.delete_device_type(&decode::tenant(&request.tenant)?, &request.name).await?;
        Ok(DeleteDeviceTypeResponse {})
    }
}

impl Server {
    async fn group_put(&self, request: PutDeviceGroupRequest) -> Result<PutDeviceGroupResponse, ApiError> {
        let kept = self.domain.put_device_group(decode::device_group(request.device_group.as_ref())?).await?;
        Ok(PutDeviceGroupResponse { device_group: Some(encode::device_group(kept)) })
    }

    async fn group(&self, request: GetDeviceGroupRequest) -> Result<GetDeviceGroupResponse, ApiError> {
        let found = self.domain.get_device_group(&decode::tenant(&request.tenant)?, &request.name).await?;
        Ok(GetDeviceGroupResponse { device_group: Some(encode::device_group(found)) })
    }

    async fn groups(&self, request: ListDeviceGroupsRequest) -> Result<ListDeviceGroupsResponse, ApiError> {
        let page = decode::page(&request.tenant, request.page_size, request.page_token)?;
        let page = self.domain.list_device_groups(&page).await?;
        let device_groups = page.items.into_iter().map(encode::device_group).collect();
        Ok(ListDeviceGroupsResponse { device_groups, next_page_token: page.next })
    }

    async fn group_deleted(&self, request: DeleteDeviceGroupRequest) -> Result<DeleteDeviceGroupResponse, ApiError> {
        self.domain.delete_device_group(&decode::tenant(&request.tenant)?, &request.name).await?;
        Ok(DeleteDeviceGroupResponse {})
    }
}

serve! {
    DeviceTypes:
    put_device_type(PutDeviceTypeRequest) -> PutDeviceTypeResponse = type_put;
    get_device_type(GetDeviceTypeRequest) -> GetDeviceTypeResponse = one_type;
    list_device_types(ListDeviceTypesRequest) -> ListDeviceTypesResponse = types;
    delete_device_type(DeleteDeviceTypeRequest) -> DeleteDeviceTypeResponse = type_deleted;
}

serve! {
    DeviceGroups:
    put_device_group(PutDeviceGroupRequest) -> PutDeviceGroupResponse = group_put;
    get_device_group(GetDeviceGroupRequest) -> GetDeviceGroupResponse = group;
    list_device_groups(ListDeviceGroupsRequest) -> ListDeviceGroupsResponse = groups;
    delete_device_group(DeleteDeviceGroupRequest) -> DeleteDeviceGroupResponse = group_deleted;
}
