//! Certificate authorities in memory, behind the real gRPC code. Their certificates are not looked at.

use std::collections::BTreeMap;
use std::sync::Mutex;

use drover_proto::registry::v1::certificate_authorities_server::CertificateAuthorities;
use drover_proto::registry::v1::*;
use drover_proto::to_status;
use drover_proto::types::v1::CertificateAuthority;
use drover_types::{ApiError, ErrorCode};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// By tenant and name.
#[derive(Default)]
pub struct FakeAuthorities(Mutex<BTreeMap<(String, String), CertificateAuthority>>);

fn missing(name: &str) -> Status {
    to_status(&ApiError::new(ErrorCode::NotFound, format!("authority {name} does not exist")))
}

#[tonic::async_trait]
impl CertificateAuthorities for FakeAuthorities {
    async fn put_certificate_authority(
        &self,
        request: Request<PutCertificateAuthorityRequest>,
    ) -> Answer<PutCertificateAuthorityResponse> {
        let mut authority = request.into_inner().certificate_authority.unwrap_or_default();
        let mut meta = authority.meta.take().unwrap_or_default();
        (meta.generation, meta.revision, meta.created_ms) = (1, 1, 1_700_000_000_000);
        authority.meta = Some(meta.clone());
        self.0.lock().unwrap().insert((meta.tenant, meta.name), authority.clone());
        Ok(Response::new(PutCertificateAuthorityResponse { certificate_authority: Some(authority) }))
    }

    async fn get_certificate_authority(
        &self,
        request: Request<GetCertificateAuthorityRequest>,
    ) -> Answer<GetCertificateAuthorityResponse> {
        let GetCertificateAuthorityRequest { tenant, name } = request.into_inner();
        let found = self.0.lock().unwrap().get(&(tenant, name.clone())).cloned();
        let certificate_authority = Some(found.ok_or_else(|| missing(&name))?);
        Ok(Response::new(GetCertificateAuthorityResponse { certificate_authority }))
    }

    async fn list_certificate_authorities(
        &self,
        request: Request<ListCertificateAuthoritiesRequest>,
    ) -> Answer<ListCertificateAuthoritiesResponse> {
        let tenant = request.into_inner().tenant;
        let authorities = self.0.lock().unwrap();
        let of_tenant = authorities.iter().filter(|((owner, _), _)| *owner == tenant);
        let certificate_authorities = of_tenant.map(|(_, authority)| authority.clone()).collect();
        let next_page_token = String::new();
        Ok(Response::new(ListCertificateAuthoritiesResponse { certificate_authorities, next_page_token }))
    }

    async fn delete_certificate_authority(
        &self,
        request: Request<DeleteCertificateAuthorityRequest>,
    ) -> Answer<DeleteCertificateAuthorityResponse> {
        let DeleteCertificateAuthorityRequest { tenant, name } = request.into_inner();
        let removed = self.0.lock().unwrap().remove(&(tenant, name.clone()));
        removed.map(|_| Response::new(DeleteCertificateAuthorityResponse {})).ok_or_else(|| missing(&name))
    }
}
