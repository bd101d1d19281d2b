//! The table of REST routes, and the OpenAPI document of exactly these routes.
//!
//! One table makes the router and lists what is documented; a test compares it with what the handlers say of themselves.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::MethodRouter;
use drover_types::object::{
    CertificateAuthoritySpec, DeviceGroupSpec, DeviceSpec, DeviceTypeSpec, FunctionSpec, PolicySpec, RuleSpec,
};
use drover_types::{ApiError, DEFAULT_TENANT};
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, ObjectBuilder, OpenApi as Document, Ref, Required, ResponseBuilder, Type};
use utoipa::{OpenApi, ToSchema};

use super::{
    Api, api_tokens, audit, authorities, commands, console, credentials, device_groups, device_types, devices,
    functions, health, policies, query, replay, rules, shadow, stream, telemetry,
};

/// Paths about the default tenant.
pub const SHORT: &str = "/api/v1";
/// Paths about any tenant.
pub const LONG: &str = "/api/v1/tenants/{tenant}";
/// Where the document is.
pub const OPENAPI: &str = "/api/openapi.json";
/// Name of the token's scheme in the document.
const SCHEME: &str = "token";

macro_rules! routes {
    ($($path:literal => { $($method:ident: $module:ident::$handler:ident),+ $(,)? })+) => {
        /// The routes of one tenant.
        pub fn of_tenant() -> Router<Arc<Api>> {
            Router::new()$(.route($path, MethodRouter::new()$(.$method($module::$handler))+))+
        }

        /// What the handlers say of themselves.
        #[derive(OpenApi)]
        #[openapi(
            paths($($($module::$handler),+),+),
            components(schemas(
                ErrorBody, CertificateAuthoritySpec, DeviceGroupSpec, DeviceSpec, DeviceTypeSpec, FunctionSpec, PolicySpec,
                RuleSpec
            ))
        )]
        struct Handlers;

        /// Method and path of every route.
        #[cfg(test)]
        pub const ROUTES: &[(&str, &str)] = &[$($((stringify!($method), $path)),+),+];
    };
}

routes! {
    "/health" => { get: health::get }
    "/audit" => { get: audit::list }
    "/authorities" => { get: authorities::list }
    "/authorities/{authority}" => { get: authorities::get, put: authorities::put, delete: authorities::delete }
    "/devices" => { get: devices::list, post: devices::create }
    "/devices/{device}" => { get: devices::get, put: devices::put, delete: devices::delete }
    "/devices/{device}/credentials" => { get: credentials::list, post: credentials::issue }
    "/devices/{device}/credentials/{credential}" => { delete: credentials::revoke }
    "/devices/{device}/shadows" => { get: shadow::list }
    "/devices/{device}/shadow" => { get: shadow::get, patch: shadow::update, post: shadow::post, delete: shadow::delete }
    "/devices/{device}/shadow/{name}" => {
        get: shadow::get_named,
        patch: shadow::update_named,
        post: shadow::post_named,
        delete: shadow::delete_named,
    }
    "/devices/{device}/commands" => { get: commands::list, post: commands::send }
    "/devices/{device}/commands/{command}" => { get: commands::get }
    "/devices/{device}/telemetry" => { get: telemetry::telemetry }
    "/devices/{device}/messages" => { get: telemetry::messages }
    "/functions" => { get: functions::list }
    "/functions/{function}" => { get: functions::get, put: functions::put, delete: functions::delete }
    "/groups" => { get: device_groups::list }
    "/groups/{group}" => { get: device_groups::get, put: device_groups::put, delete: device_groups::delete }
    "/groups/{group}/devices" => { get: device_groups::devices }
    "/policies" => { get: policies::list }
    "/policies/{policy}" => { get: policies::get, put: policies::put, delete: policies::delete }
    "/query" => { post: query::query }
    "/rules" => { get: rules::list }
    "/rules/{rule}" => { get: rules::get, put: rules::put, delete: rules::delete }
    "/rules/{rule}/replay" => { post: replay::replay }
    "/stream" => { get: stream::open }
    "/tokens" => { get: api_tokens::list, post: api_tokens::create }
    "/tokens/{token}" => { delete: api_tokens::delete }
    "/types" => { get: device_types::list }
    "/types/{type}" => { get: device_types::get, put: device_types::put, delete: device_types::delete }
    "/console-links" => { post: console::invite }
}

/// What every answer looks like that is no success.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only documents; drover_host::http::Failure writes it")]
struct ErrorBody {
    error: ApiError,
}

/// Serves the document.
pub async fn openapi() -> impl IntoResponse {
    static JSON: LazyLock<String> = LazyLock::new(openapi_json);
    ([(CONTENT_TYPE, "application/json")], JSON.as_str())
}

/// The OpenAPI document, as it is served and kept in `deploy/openapi.json`.
pub fn openapi_json() -> String {
    let mut json = document().to_pretty_json().expect("a document is plain data");
    json.push('\n');
    json
}

/// Every route in its short and in its long form.
fn document() -> Document {
    let mut document = Handlers::openapi();
    document.info.title = "Drover".to_owned();
    document.info.description = Some(format!(
        "Paths under {LONG} are about any tenant, those under {SHORT} about the tenant `{DEFAULT_TENANT}`."
    ));
    let handlers = std::mem::take(&mut document.paths.paths);
    for (path, mut item) in handlers {
        operations(&mut item).for_each(complete);
        let mut long = item.clone();
        operations(&mut long).for_each(about_tenant);
        document.paths.paths.insert(format!("{SHORT}{path}"), item);
        document.paths.paths.insert(format!("{LONG}{path}"), long);
    }
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    document.components.get_or_insert_default().add_security_scheme(SCHEME, scheme);
    document.security = Some(vec![SecurityRequirement::new(SCHEME, [""; 0])]);
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

/// Every operation may fail in the one shape.
fn complete(operation: &mut Operation) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(ErrorBody::name()))).build();
    let response = ResponseBuilder::new().description("Why it was refused.").content("application/json", content);
    operation.responses.responses.insert("default".to_owned(), response.build().into());
}

/// The form of an operation that names its tenant.
fn about_tenant(operation: &mut Operation) {
    let tenant = ParameterBuilder::new()
        .name("tenant")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build();
    operation.parameters.get_or_insert_default().insert(0, tenant.into());
    operation.operation_id = operation.operation_id.take().map(|id| format!("{id}OfTenant"));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_every_route_and_nothing_else() {
        let json: serde_json::Value = serde_json::from_str(&openapi_json()).expect("JSON");
        let paths = json["paths"].as_object().expect("paths");
        let documented: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().expect("operations").keys();
                methods.map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
            })
            .collect();
        let routed = ROUTES
            .iter()
            .flat_map(|(method, path)| [SHORT, LONG].map(|prefix| ((*method).to_owned(), format!("{prefix}{path}"))));
        assert_eq!(documented, routed.collect());
    }

    #[test]
    fn operations_have_names_of_their_own_and_refer_to_what_is_there() {
        let text = openapi_json();
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let items = json["paths"].as_object().expect("paths").values();
        let operations = items.flat_map(|item| item.as_object().expect("operations").values());
        let ids: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().expect("an id")).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("text");
            assert!(json["components"]["schemas"].get(name).is_some(), "{name} is referred to and not there");
        }
    }
}
