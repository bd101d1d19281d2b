//! `authorities` and `authorities/{authority}`: whose certificates register devices.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use drover_host::http::Failure;
use drover_proto::Field;
use drover_proto::registry::v1::{
    DeleteCertificateAuthorityRequest, GetCertificateAuthorityRequest, ListCertificateAuthoritiesRequest,
    PutCertificateAuthorityRequest,
};
use drover_proto::types::v1 as wire;
use drover_types::ApiError;
use drover_types::object::CertificateAuthoritySpec;

use super::Api;
use super::body::{Body, Params};
use super::objects::{Answer, List, Page};
use super::path::{At, AuthorityParam};
use crate::domain::declared::{Declared, Metadata};

type Authority = Declared<CertificateAuthoritySpec>;

/// Certificate authorities, in the order of their names.
#[utoipa::path(get, path = "/authorities", operation_id = "listAuthorities", tag = "authorities", params(Page),
    responses((status = 200, body = List<Declared<CertificateAuthoritySpec>>, description = "One page.")))]
pub async fn list(State(api): State<Arc<Api>>, at: At, Params(page): Params<Page>) -> Answer<List<Authority>> {
    let request = ListCertificateAuthoritiesRequest {
        tenant: at.tenant.into(),
        page_size: page.size(api.config.page_items_max)?,
        page_token: page.page_token,
    };
    let listed = api.authorities.call(async |mut client| client.list_certificate_authorities(request).await).await?;
    let items = listed.certificate_authorities.iter().map(shown).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_page_token: listed.next_page_token }))
}

/// One certificate authority.
#[utoipa::path(get, path = "/authorities/{authority}", operation_id = "getAuthority", tag = "authorities",
    params(AuthorityParam), responses((status = 200, body = Declared<CertificateAuthoritySpec>, description = "The authority.")))]
pub async fn get(State(api): State<Arc<Api>>, at: At) -> Answer<Authority> {
    let (tenant, name) = (at.tenant.to_string(), at.name("authority")?.to_owned());
    let request = GetCertificateAuthorityRequest { tenant, name };
    let found = api.authorities.call(async |mut client| client.get_certificate_authority(request).await).await?;
    Ok(Json(shown(found.certificate_authority.as_ref().required("certificate_authority")?)?))
}

/// Registers or replaces an authority.
///
/// From now on a device that connects with one of its certificates for the first time is registered as the template says.
#[utoipa::path(put, path = "/authorities/{authority}", operation_id = "putAuthority", tag = "authorities",
    params(AuthorityParam), request_body = Declared<CertificateAuthoritySpec>,
    responses((status = 200, body = Declared<CertificateAuthoritySpec>, description = "The authority as it is now.")))]
pub async fn put(State(api): State<Arc<Api>>, at: At, Body(body): Body) -> Answer<Authority> {
    let object = Authority::read(body)?;
    let meta = object.metadata.to_wire(&at.tenant, Some(at.name("authority")?))?;
    let certificate_authority = Some(wire::CertificateAuthority::of(meta, object.spec));
    let request = PutCertificateAuthorityRequest { certificate_authority };
    let kept = api.authorities.call(async |mut client| client.put_certificate_authority(request).await).await?;
    Ok(Json(shown(kept.certificate_authority.as_ref().required("certificate_authority")?)?))
}

/// Deletes an authority: it registers no devices any more. Those that it has registered stay.
#[utoipa::path(delete, path = "/authorities/{authority}", operation_id = "deleteAuthority", tag = "authorities",
    params(AuthorityParam), responses((status = 204, description = "It is deleted.")))]
pub async fn delete(State(api): State<Arc<Api>>, at: At) -> Result<StatusCode, Failure> {
    let (tenant, name) = (at.tenant.to_string(), at.name("authority")?.to_owned());
    let request = DeleteCertificateAuthorityRequest { tenant, name };
    api.authorities.call(async |mut client| client.delete_certificate_authority(request).await).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(authority: &wire::CertificateAuthority) -> Result<Authority, ApiError> {
    let metadata = Metadata::from(authority.meta.as_ref().required("certificate_authority.meta")?);
    Ok(Declared::new(metadata, CertificateAuthoritySpec::try_from(authority)?, None))
}
