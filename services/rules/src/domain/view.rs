//! What rules look up besides their messages: the last state of registry entries and shadows, each kept as JSON, of the
//! tenants whose rules ask for it and of no others.
//!
//! It follows the log a moment behind, as the rules themselves do: a message that comes right after a change may still
//! see what was before. Who reads the log for it is in [`crate::follow`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use drover_rule_sql::{Asked, LookupError, Lookups, Value, read_json};
use drover_types::TenantId;

/// Most bytes of names and JSON in one view, each entry with [`ENTRY_COST_BYTES`].
pub const VIEW_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Most of it that is one tenant's.
const TENANT_BYTES_MAX: usize = VIEW_BYTES_MAX / 4;
/// Entries of a tenant without room whose keys are remembered; with more, any that is not there may be one.
const CROWDED_OUT_MAX: usize = 10_000;
/// What an entry takes besides its text, about.
const ENTRY_COST_BYTES: usize = 64;

/// The views of this process.
#[derive(Debug)]
pub struct Views {
    /// Keys are names of devices.
    pub devices: View,
    /// Keys are `thing`, or `thing/shadow` for named ones.
    pub shadows: View,
}

/// The last state of things of one kind.
#[derive(Debug)]
pub struct View {
    /// What it is of, for errors.
    of: &'static str,
    bytes_max: usize,
    tenant_bytes_max: usize,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Tenants whose rules ask, and those of them that are known.
    asked: HashSet<TenantId>,
    known: HashSet<TenantId>,
    tenants: HashMap<TenantId, OfTenant>,
    /// Of all tenants.
    bytes: usize,
}

#[derive(Debug, Default)]
struct OfTenant {
    entries: HashMap<Box<str>, Arc<str>>,
    bytes: usize,
    /// Keys of entries that there is no room for.
    crowded_out: HashSet<Box<str>>,
    /// Whether there are more of them than are remembered.
    more: bool,
}

/// What an entry is now; `None`: there is none.
pub type Change<'c> = (&'c TenantId, &'c str, Option<String>);

impl Default for Views {
    fn default() -> Self {
        Self { devices: View::of("devices"), shadows: View::of("shadows") }
    }
}

impl Views {
    /// Asks for what rules of a tenant look up; what is missing yet is named.
    pub fn ask(&self, tenant: &TenantId, asked: Asked) -> Result<(), &'static str> {
        // Both are asked before either is waited for.
        let devices = !asked.devices || self.devices.ask(tenant);
        let shadows = !asked.shadows || self.shadows.ask(tenant);
        match (devices, shadows) {
            (true, true) => Ok(()),
            (false, _) => Err(self.devices.of),
            (true, false) => Err(self.shadows.of),
        }
    }
}

impl View {
    fn of(of: &'static str) -> Self {
        Self { of, bytes_max: VIEW_BYTES_MAX, tenant_bytes_max: TENANT_BYTES_MAX, state: RwLock::default() }
    }

    /// Asks for the entries of a tenant; whether they are known.
    fn ask(&self, tenant: &TenantId) -> bool {
        if self.read().known.contains(tenant) {
            return true;
        }
        self.write().asked.insert(tenant.clone());
        false
    }

    /// Tenants that were asked for and are not known.
    pub fn unknown(&self) -> HashSet<TenantId> {
        let state = self.read();
        state.asked.difference(&state.known).cloned().collect()
    }

    /// What entries of `tenants` have become; those of others are passed over.
    pub fn apply<'c>(&self, tenants: &HashSet<TenantId>, changes: impl IntoIterator<Item = Change<'c>>) {
        let mut state = self.write();
        for (tenant, key, json) in changes {
            if tenants.contains(tenant) {
                state.apply(tenant, key, json, (self.bytes_max, self.tenant_bytes_max));
            }
        }
    }

    /// All that there was when these tenants were asked for has been applied.
    pub fn know(&self, tenants: HashSet<TenantId>) {
        self.write().known.extend(tenants);
    }

    /// Tenants that are known.
    pub fn known(&self) -> HashSet<TenantId> {
        self.read().known.clone()
    }

    /// Bytes that it takes, about, and entries that there is no room for, as far as they are remembered.
    pub fn size(&self) -> (usize, u64) {
        let state = self.read();
        (state.bytes, state.tenants.values().map(|of| of.crowded_out.len() as u64).sum())
    }

    /// An entry as a value.
    fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Value<'static>>, LookupError> {
        let (entry, is_crowded) = {
            let state = self.read();
            if !state.known.contains(tenant) {
                return Err(LookupError { reason: format!("{} are not read yet", self.of) });
            }
            let of = state.tenants.get(tenant);
            let entry = of.and_then(|of| of.entries.get(key)).cloned();
            (entry, of.is_some_and(|of| of.more || of.crowded_out.contains(key)))
        };
        match entry {
            // Read without the lock: a document may be long.
            Some(json) => match read_json(json.as_bytes()) {
                Ok(value) => Ok(Some(value.into_owned())),
                Err(error) => Err(LookupError { reason: error.to_string() }),
            },
            None if is_crowded => {
                let reason = format!("there is no room for more {}, limit is {} bytes", self.of, self.tenant_bytes_max);
                Err(LookupError { reason })
            }
            None => Ok(None),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(
        &mut self,
        tenant: &TenantId,
        key: &str,
        json: Option<String>,
        (bytes_max, tenant_bytes_max): (usize, usize),
    ) {
        let of = self.tenants.entry(tenant.clone()).or_default();
        of.crowded_out.remove(key);
        if let Some((key, json)) = of.entries.remove_entry(key) {
            self.bytes -= cost(&key, &json);
            of.bytes -= cost(&key, &json);
        }
        let Some(json) = json else { return };
        let bytes = cost(key, &json);
        if self.bytes + bytes > bytes_max || of.bytes + bytes > tenant_bytes_max {
            if of.crowded_out.len() < CROWDED_OUT_MAX {
                of.crowded_out.insert(key.into());
            } else {
                of.more = true;
            }
            return;
        }
        self.bytes += bytes;
        of.bytes += bytes;
        of.entries.insert(key.into(), json.into());
    }
}

fn cost(key: &str, json: &str) -> usize {
    key.len() + json.len() + ENTRY_COST_BYTES
}

/// What the rules of a tenant look up for a message of one of its devices.
pub struct Lookup<'v> {
    pub views: &'v Views,
    pub tenant: &'v TenantId,
    pub device: &'v str,
}

impl Lookups for Lookup<'_> {
    fn shadow(&self, thing: &str, shadow: Option<&str>) -> Result<Option<Value<'static>>, LookupError> {
        match shadow {
            Some(shadow) => self.views.shadows.get(self.tenant, &format!("{thing}/{shadow}")),
            // A key of a named shadow names no thing.
            None if thing.contains('/') => Ok(None),
            None => self.views.shadows.get(self.tenant, thing),
        }
    }

    fn device(&self) -> Result<Option<Value<'static>>, LookupError> {
        self.views.devices.get(self.tenant, self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).expect("a name")
    }

    fn known(bytes_max: usize) -> (View, TenantId) {
        let view = View { bytes_max: 2 * bytes_max, tenant_bytes_max: bytes_max, ..View::of("devices") };
        let tenant = tenant("home");
        assert!(!view.ask(&tenant));
        assert_eq!(view.unknown(), HashSet::from([tenant.clone()]));
        view.know(view.unknown());
        assert!(view.ask(&tenant) && view.unknown().is_empty());
        (view, tenant)
    }

    fn put(view: &View, tenant: &TenantId, key: &str, json: Option<&str>) {
        view.apply(&view.known(), [(tenant, key, json.map(str::to_owned))]);
    }

    #[test]
    fn the_last_state_of_a_key_counts_and_only_of_tenants_that_asked() {
        let (view, home) = known(1_000);
        put(&view, &home, "a", Some(r#"{"x": 1}"#));
        put(&view, &home, "a", Some(r#"{"x": 2}"#));
        put(&view, &tenant("other"), "a", Some("3"));
        let text = |key: &str| view.get(&home, key).map(|value| value.map(|value| value.to_string()));
        assert_eq!(text("a"), Ok(Some(r#"{"x":2}"#.to_owned())));
        assert_eq!(text("b"), Ok(None));
        let refused = view.get(&tenant("other"), "a").expect_err("nobody asked").to_string();
        assert_eq!(refused, "devices are not read yet");
        put(&view, &home, "a", None);
        assert_eq!((text("a"), view.size()), (Ok(None), (0, 0)));
    }

    #[test]
    fn what_there_is_no_room_for_is_an_error_and_not_taken_for_missing() {
        let (view, home) = known(2 * (ENTRY_COST_BYTES + 2));
        for key in ["a", "b", "c"] {
            put(&view, &home, key, Some("1"));
        }
        assert_eq!(view.size(), (2 * (ENTRY_COST_BYTES + 2), 1));
        assert!(view.get(&home, "a").is_ok_and(|value| value.is_some()));
        let refused = view.get(&home, "c").expect_err("no room").to_string();
        assert_eq!(refused, "there is no room for more devices, limit is 132 bytes");
        assert_eq!(view.get(&home, "d"), Ok(None), "of that it is known that it is missing");
        let other = tenant("other");
        assert!(!view.ask(&other));
        view.know(view.unknown());
        put(&view, &other, "c", Some("1"));
        assert!(view.get(&other, "c").is_ok_and(|value| value.is_some()), "another tenant has room");
        put(&view, &home, "a", None);
        put(&view, &home, "c", Some("1"));
        assert!(view.get(&home, "c").is_ok_and(|value| value.is_some()), "and so has this one again");
        assert_eq!(view.size().1, 0);
    }

    #[test]
    fn shadows_are_found_by_thing_and_name() {
        let (views, home) = (Views::default(), tenant("home"));
        let both = Asked { devices: true, shadows: true };
        assert_eq!(views.ask(&home, both), Err("devices"));
        views.devices.know(views.devices.unknown());
        assert_eq!(views.ask(&home, both), Err("shadows"));
        views.shadows.know(views.shadows.unknown());
        assert_eq!(views.ask(&home, both), Ok(()));
        put(&views.shadows, &home, "t", Some("1"));
        put(&views.shadows, &home, "t/s", Some("2"));
        let lookup = Lookup { views: &views, tenant: &home, device: "d" };
        let number =
            |shadow: Result<Option<Value<'static>>, LookupError>| shadow.expect("known").map(|value| value.to_string());
        assert_eq!(number(lookup.shadow("t", None)).as_deref(), Some("1"));
        assert_eq!(number(lookup.shadow("t", Some("s"))).as_deref(), Some("2"));
        assert_eq!((number(lookup.shadow("t/s", None)), number(lookup.device())), (None, None));
    }
}
