//! The platform in memory: what the operator's ports promise, and no more.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use drover_operator::ports::*;
use drover_types::object::{CertificateAuthoritySpec, DeviceSpec, FunctionSpec, PolicySpec, RuleSpec};
use drover_types::{ApiError, DeviceKey, ErrorCode, TenantId};
use serde_json::{Map, Value};

/// Devices of one page.
const PAGE: usize = 3;

/// Registry, shadows and rules at once.
#[derive(Default)]
pub struct Platform {
    pub devices: Mutex<BTreeMap<String, FoundDevice>>,
    pub credentials: Mutex<Vec<Credential>>,
    pub rules: Mutex<BTreeMap<String, Found<RuleSpec>>>,
    pub policies: Mutex<BTreeMap<String, Found<PolicySpec>>>,
    pub functions: Mutex<BTreeMap<String, Found<FunctionSpec>>>,
    pub authorities: Mutex<BTreeMap<String, Found<CertificateAuthoritySpec>>>,
    pub desired: Mutex<Map<String, Value>>,
    /// Devices whose shadows want what is not reported.
    pub open: Mutex<Vec<String>>,
    /// Why nobody knows those, if so.
    pub open_unknown: Mutex<Option<ApiError>>,
    pub run: Mutex<Option<RuleRun>>,
    /// What every call of the registry is answered with, if anything.
    pub refusal: Mutex<Option<ApiError>>,
    /// Devices that cannot be deleted now.
    pub held: Mutex<Vec<String>>,
    /// Reads and writes, by their names.
    pub calls: Mutex<Vec<String>>,
    /// The time at which credentials are made, milliseconds since the Unix epoch.
    pub now_ms: Mutex<u64>,
    made: Mutex<usize>,
}

impl Platform {
    fn called(&self, call: &str) -> Result<(), ApiError> {
        self.calls.lock().unwrap().push(call.to_owned());
        self.refusal.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    /// The calls since the last time.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Somebody else writes a device.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut FoundDevice)) {
        let mut devices = self.devices.lock().unwrap();
        let device = devices.get_mut(name).expect("there");
        change(device);
        device.object.revision += 1;
    }

    pub fn ids(&self) -> Vec<String> {
        self.credentials.lock().unwrap().iter().map(|credential| credential.id.clone()).collect()
    }
}

/// What is written over the object of `revision`, as the registry judges it.
fn put<S: Clone>(
    all: &mut BTreeMap<String, Found<S>>,
    wanted: &Wanted<S>,
    revision: u64,
) -> Result<Found<S>, ApiError> {
    let former = all.get(&wanted.name);
    if former.map_or(0, |former| former.revision) != revision {
        return Err(ApiError::new(ErrorCode::Aborted, "somebody else was faster"));
    }
    let Wanted { labels, spec, owner, .. } = wanted.clone();
    let generation = former.map_or(0, |former| former.generation) + 1;
    let found = Found { labels, spec, owner, revision: revision + 1, generation };
    all.insert(wanted.name.clone(), found.clone());
    Ok(found)
}

#[async_trait]
impl Registry for Platform {
    async fn device(&self, key: &DeviceKey) -> Result<Option<FoundDevice>, ApiError> {
        self.called("device")?;
        Ok(self.devices.lock().unwrap().get(key.device.as_str()).cloned())
    }

    async fn put_device(&self, wanted: &Wanted<DeviceSpec>, revision: u64) -> Result<Found<DeviceSpec>, ApiError> {
        self.called("put_device")?;
        let mut devices = self.devices.lock().unwrap();
        let mut objects: BTreeMap<_, _> = devices.iter().map(|(name, d)| (name.clone(), d.object.clone())).collect();
        let object = put(&mut objects, wanted, revision)?;
        let presence = devices.get(&wanted.name).map(|device| device.presence).unwrap_or_default();
        let device = FoundDevice { name: wanted.name.clone(), object: object.clone(), presence };
        devices.insert(wanted.name.clone(), device);
        Ok(object)
    }

    async fn delete_device(&self, key: &DeviceKey) -> Result<Vec<String>, ApiError> {
        self.called("delete_device")?;
        self.credentials.lock().unwrap().clear();
        self.devices.lock().unwrap().remove(key.device.as_str());
        Ok(Vec::new())
    }

    async fn credentials(&self, _: &DeviceKey) -> Result<Vec<Credential>, ApiError> {
        self.called("credentials")?;
        Ok(self.credentials.lock().unwrap().clone())
    }

    async fn issue(
        &self,
        _: &DeviceKey,
        kind: CredentialKind,
        duration_s: u64,
        owner: &str,
    ) -> Result<Issued, ApiError> {
        self.called("issue")?;
        let (mut made, created_ms) = (self.made.lock().unwrap(), *self.now_ms.lock().unwrap());
        *made += 1;
        let expires_ms = (duration_s > 0).then(|| created_ms + duration_s * 1000);
        let credential = Credential { id: format!("c{made}"), kind, owner: owner.into(), created_ms, expires_ms };
        self.credentials.lock().unwrap().push(credential.clone());
        let secret = match kind {
            CredentialKind::Token => IssuedSecret::Token(format!("drv_{made}")),
            CredentialKind::Certificate => IssuedSecret::Certificate {
                certificate: format!("certificate {made}"),
                private_key: "key".into(),
                authority: "authority".into(),
            },
        };
        Ok(Issued { credential, secret })
    }

    async fn revoke(&self, _: &TenantId, id: &str) -> Result<(), ApiError> {
        self.called("revoke")?;
        self.credentials.lock().unwrap().retain(|credential| credential.id != id);
        Ok(())
    }

    async fn rule(&self, _: &TenantId, name: &str) -> Result<Option<Found<RuleSpec>>, ApiError> {
        self.called("rule")?;
        Ok(self.rules.lock().unwrap().get(name).cloned())
    }

    async fn put_rule(&self, wanted: &Wanted<RuleSpec>, revision: u64) -> Result<Found<RuleSpec>, ApiError> {
        self.called("put_rule")?;
        if !wanted.spec.sql.starts_with("SELECT") {
            return Err(ApiError::invalid("spec.sql", "expected SELECT at line 1, column 1"));
        }
        put(&mut self.rules.lock().unwrap(), wanted, revision)
    }

    async fn delete_rule(&self, _: &TenantId, name: &str) -> Result<(), ApiError> {
        self.called("delete_rule")?;
        self.rules.lock().unwrap().remove(name);
        Ok(())
    }

    async fn policy(&self, _: &TenantId, name: &str) -> Result<Option<Found<PolicySpec>>, ApiError> {
        self.called("policy")?;
        Ok(self.policies.lock().unwrap().get(name).cloned())
    }

    async fn put_policy(&self, wanted: &Wanted<PolicySpec>, revision: u64) -> Result<Found<PolicySpec>, ApiError> {
        self.called("put_policy")?;
        put(&mut self.policies.lock().unwrap(), wanted, revision)
    }

    async fn delete_policy(&self, _: &TenantId, name: &str) -> Result<(), ApiError> {
        self.called("delete_policy")?;
        self.policies.lock().unwrap().remove(name);
        Ok(())
    }

    async fn function(&self, _: &TenantId, name: &str) -> Result<Option<Found<FunctionSpec>>, ApiError> {
        self.called("function")?;
        Ok(self.functions.lock().unwrap().get(name).cloned())
    }

    async fn put_function(
        &self,
        wanted: &Wanted<FunctionSpec>,
        revision: u64,
    ) -> Result<Found<FunctionSpec>, ApiError> {
        self.called("put_function")?;
        if !wanted.spec.source.contains(&wanted.spec.routine) {
            return Err(ApiError::invalid("spec.routine", "the script has no such function"));
        }
        put(&mut self.functions.lock().unwrap(), wanted, revision)
    }

    async fn delete_function(&self, _: &TenantId, name: &str) -> Result<(), ApiError> {
        self.called("delete_function")?;
        self.functions.lock().unwrap().remove(name);
        Ok(())
    }

    async fn certificate_authority(
        &self,
        _: &TenantId,
        name: &str,
    ) -> Result<Option<Found<CertificateAuthoritySpec>>, ApiError> {
        self.called("certificate_authority")?;
        Ok(self.authorities.lock().unwrap().get(name).cloned())
    }

    async fn put_certificate_authority(
        &self,
        wanted: &Wanted<CertificateAuthoritySpec>,
        revision: u64,
    ) -> Result<Found<CertificateAuthoritySpec>, ApiError> {
        self.called("put_certificate_authority")?;
        if !wanted.spec.certificate.starts_with("-----BEGIN CERTIFICATE-----") {
            return Err(ApiError::invalid("spec.certificate", "is no certificate in PEM"));
        }
        put(&mut self.authorities.lock().unwrap(), wanted, revision)
    }

    async fn delete_certificate_authority(&self, _: &TenantId, name: &str) -> Result<(), ApiError> {
        self.called("delete_certificate_authority")?;
        self.authorities.lock().unwrap().remove(name);
        Ok(())
    }

    async fn devices(&self, _: &TenantId, after: &str) -> Result<DevicePage, ApiError> {
        self.called("devices")?;
        let all = self.devices.lock().unwrap();
        let rest: Vec<_> = all.values().filter(|device| device.name.as_str() > after).cloned().collect();
        let next = if rest.len() > PAGE { rest[PAGE - 1].name.clone() } else { String::new() };
        Ok(DevicePage { devices: rest.into_iter().take(PAGE).collect(), next })
    }

    async fn put_devices(&self, wanted: &[Wanted<DeviceSpec>]) -> Result<Vec<Refusal>, ApiError> {
        self.called("put_devices")?;
        assert!(wanted.len() <= BULK_MAX);
        let mut refusals = Vec::new();
        for wanted in wanted {
            if wanted.name.contains(' ') {
                let error = ApiError::invalid("metadata.name", "device id contains ' '");
                refusals.push(Refusal { name: wanted.name.clone(), error });
                continue;
            }
            let revision = self.devices.lock().unwrap().get(&wanted.name).map_or(0, |d| d.object.revision);
            self.put_device(wanted, revision).await?;
        }
        Ok(refusals)
    }

    async fn delete_devices(&self, _: &TenantId, owner: &str, names: &[String]) -> Result<Vec<Refusal>, ApiError> {
        self.called("delete_devices")?;
        let held = self.held.lock().unwrap().clone();
        let goes = |name: &String, device: &FoundDevice| {
            names.contains(name) && device.object.owner == owner && !held.contains(name)
        };
        self.devices.lock().unwrap().retain(|name, device| !goes(name, device));
        let refused = |name: &String| Refusal {
            name: name.clone(),
            error: ApiError::new(ErrorCode::Unavailable, "the store does not answer"),
        };
        Ok(held.iter().filter(|name| names.contains(name)).map(refused).collect())
    }
}

#[async_trait]
impl Shadows for Platform {
    async fn desired(&self, _: &DeviceKey) -> Result<(Map<String, Value>, u64), ApiError> {
        let desired = self.desired.lock().unwrap().clone();
        let version = u64::from(!desired.is_empty());
        Ok((desired, version))
    }

    async fn update(&self, _: &DeviceKey, desired: &Map<String, Value>, _: [u8; 16]) -> Result<u64, ApiError> {
        self.called("update_shadow")?;
        self.desired.lock().unwrap().extend(desired.clone());
        Ok(2)
    }

    async fn open_deltas(&self, _: &TenantId, after: &str) -> Result<OpenDeltas, ApiError> {
        if let Some(error) = self.open_unknown.lock().unwrap().clone() {
            return Err(error);
        }
        let all = self.open.lock().unwrap();
        let from = if after.is_empty() { 0 } else { after.parse().expect("a place") };
        let devices: Vec<_> = all.iter().skip(from).take(PAGE).cloned().collect();
        let to = from + devices.len();
        let next = if to < all.len() { to.to_string() } else { String::new() };
        Ok(OpenDeltas { devices, next })
    }
}

#[async_trait]
impl RuleRuns for Platform {
    async fn run_of(&self, _: &TenantId, _: &str) -> Result<Option<RuleRun>, ApiError> {
        Ok(self.run.lock().unwrap().clone())
    }
}
