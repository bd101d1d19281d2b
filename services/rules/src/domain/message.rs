//! A record as rules see it: the message, and whom it may ask besides itself.

use drover_rule_sql::{LookupError, Lookups, Message, Origin, PayloadFormat, Properties, UserFunctions};
use drover_types::object::FunctionSpec;
use drover_types::{ClientId, Telemetry, TenantId};

use super::rule_set::RuleSet;

/// Calls a tenant's function with JSON texts; its result is JSON, or none.
pub type Call<'e> = &'e dyn Fn(&TenantId, &FunctionSpec, &[String]) -> Result<Option<String>, String>;

/// The functions that rules of a tenant may call.
pub struct Functions<'e> {
    pub tenant: &'e TenantId,
    pub rules: &'e RuleSet,
    pub call: Call<'e>,
}

impl UserFunctions for Functions<'_> {
    fn call(&self, function: &str, arguments: &[String]) -> Result<Option<String>, LookupError> {
        let Some(function) = self.rules.function(self.tenant, function) else {
            return Err(LookupError { reason: "there is no such function any more".to_owned() });
        };
        (self.call)(self.tenant, function, arguments).map_err(|reason| LookupError { reason })
    }
}

/// A record as rules see it. The row of a window looks nothing up.
pub fn message<'m>(
    telemetry: &'m Telemetry,
    functions: &'m dyn UserFunctions,
    lookups: Option<&'m dyn Lookups>,
) -> Message<'m> {
    let (topic, client) = (telemetry.topic.as_str(), telemetry.mqtt_client().map(ClientId::as_str));
    let mut message = Message::new(topic, client, telemetry.time_ms, &telemetry.payload);
    let content_type = telemetry.content_type.as_deref();
    let mqtt5 = telemetry.mqtt5.as_deref();
    let format = |utf8| if utf8 { PayloadFormat::Utf8 } else { PayloadFormat::Unspecified };
    let properties = Properties {
        content_type,
        payload_format: mqtt5.and_then(|mqtt5| mqtt5.utf8).map(format),
        response_topic: mqtt5.and_then(|mqtt5| mqtt5.response_topic.as_deref()),
        correlation_data: mqtt5.and_then(|mqtt5| mqtt5.correlation_data.as_deref()),
        user: &telemetry.properties,
    };
    let account = Some(telemetry.tenant.as_str());
    let device = Some(telemetry.device.as_str());
    let (id, functions) = (telemetry.id.0, Some(functions));
    message.origin = Origin { id, device, account, properties, lookups, functions, ..Origin::default() };
    message
}
