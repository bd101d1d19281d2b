//! Fleets: which devices they declare, and what has to be done for the registry to have them.
//!
//! Both the fleet and the registry's list are in the order of names, so one walk along both compares them; nothing is held
//! of a numbered fleet but the places of those that have to be written, and of those whose shadows want something.

use std::collections::{BTreeMap, HashSet};

use drover_types::object::{CertificateAuthoritySpec, DeviceSpec};
use drover_types::{ApiError, TenantId};

use super::csv::{self, Row};
use super::problem::told;
use crate::crd::{CountSource, DeviceFleetSpec, FleetError, FleetSource, FleetTemplate};
use crate::ports::{BULK_BYTES_MAX, BULK_MAX, FoundDevice, Refusal, Wanted};

/// How many errors a status tells.
const ERRORS_MAX: usize = 10;
/// What a text, and whatever has texts in it, takes of a message besides them: its number and its length, in bytes at most.
const FRAME_BYTES: usize = 5;

/// The devices of a fleet.
#[derive(Clone, Debug)]
pub struct Fleet {
    tenant: TenantId,
    owner: String,
    template: FleetTemplate,
    members: Members,
}

#[derive(Clone, Debug)]
enum Members {
    Numbered(CountSource),
    /// In the order of the bytes of their names, each once.
    Listed(Vec<Row>),
}

impl Fleet {
    /// The devices of `spec`; `table` is the text of its CSV source, where it has one. At most `devices_max`.
    pub fn new(
        tenant: TenantId,
        owner: String,
        spec: &DeviceFleetSpec,
        table: Option<&str>,
        devices_max: u64,
    ) -> Result<Self, ApiError> {
        let source = &spec.source;
        let members = match (&source.count, &source.names, &source.csv, &source.certificate_authority) {
            (Some(count), None, None, None) => numbered(count, devices_max)?,
            (None, Some(names), None, None) => {
                let row = |name: &String| Row { name: name.clone(), ..Row::default() };
                listed("spec.source.names", names.iter().map(row).collect(), devices_max)?
            }
            (None, None, Some(_), None) => {
                listed("spec.source.csv", csv::read(table.unwrap_or_default(), devices_max)?, devices_max)?
            }
            _ => return Err(not_one()),
        };
        Ok(Self { tenant, owner, template: spec.template.clone(), members })
    }

    /// How many devices it has.
    pub fn len(&self) -> usize {
        match &self.members {
            Members::Numbered(count) => usize::try_from(count.devices).unwrap_or(usize::MAX),
            Members::Listed(rows) => rows.len(),
        }
    }

    /// The name of the device at this place.
    fn name(&self, place: usize) -> String {
        match &self.members {
            Members::Numbered(count) => numbered_name(count, place as u64 + 1),
            Members::Listed(rows) => rows[place].name.clone(),
        }
    }

    /// The place of the device of this name, if the fleet has one.
    pub fn place(&self, name: &str) -> Option<usize> {
        let place = match &self.members {
            Members::Numbered(count) => {
                let number: u64 = name.strip_prefix(&count.prefix)?.parse().ok()?;
                usize::try_from(number.checked_sub(1)?).ok()?
            }
            Members::Listed(rows) => rows.binary_search_by(|row| row.name.as_str().cmp(name)).ok()?,
        };
        (place < self.len() && self.name(place) == name).then_some(place)
    }

    /// The device at this place, as the registry is to have it.
    pub fn wanted(&self, place: usize) -> Wanted<DeviceSpec> {
        let template = &self.template;
        let mut wanted = Wanted {
            tenant: self.tenant.clone(),
            name: self.name(place),
            labels: template.labels.clone(),
            spec: device_spec(template),
            owner: self.owner.clone(),
        };
        if let Members::Listed(rows) = &self.members {
            let row = &rows[place];
            wanted.labels.extend(row.labels.clone());
            wanted.spec.attributes.extend(row.attributes.clone());
            wanted.spec.device_type = row.device_type.clone().or(wanted.spec.device_type);
        }
        wanted
    }
}

/// The authority of a fleet, by the fleet's own name; `certificate` is PEM.
pub fn authority(
    tenant: TenantId,
    owner: String,
    name: String,
    spec: &DeviceFleetSpec,
    certificate: String,
) -> Result<Wanted<CertificateAuthoritySpec>, ApiError> {
    let FleetSource { count: None, names: None, csv: None, certificate_authority: Some(_) } = &spec.source else {
        return Err(not_one());
    };
    let (labels, template) = (spec.template.labels.clone(), device_spec(&spec.template));
    let spec = CertificateAuthoritySpec { certificate, labels, template };
    Ok(Wanted { tenant, name, labels: BTreeMap::new(), spec, owner })
}

fn device_spec(template: &FleetTemplate) -> DeviceSpec {
    DeviceSpec {
        device_type: template.device_type.clone().filter(|name| !name.is_empty()),
        enabled: template.enabled,
        attributes: template.attributes.clone(),
        policies: template.policies.clone(),
    }
}

fn not_one() -> ApiError {
    let message = "a source has exactly one of count, names, csv, certificateAuthority";
    ApiError::invalid("spec.source", message)
}

/// Some devices in parts that fit into a bulk call each, in their order.
pub fn parts(devices: &[Wanted<DeviceSpec>]) -> Vec<&[Wanted<DeviceSpec>]> {
    let (mut parts, mut begun, mut bytes) = (Vec::new(), 0, 0);
    for (place, device) in devices.iter().enumerate() {
        let more = bytes_of(device);
        if place > begun && (bytes + more > BULK_BYTES_MAX || place - begun == BULK_MAX) {
            parts.push(&devices[begun..place]);
            (begun, bytes) = (place, 0);
        }
        bytes += more;
    }
    if begun < devices.len() {
        parts.push(&devices[begun..]);
    }
    parts
}

/// What a device takes of a message at most. It may have more entries than the registry takes, which refuses it then.
fn bytes_of(device: &Wanted<DeviceSpec>) -> usize {
    let text = |text: &str| FRAME_BYTES + text.len();
    let entries = device.labels.iter().chain(&device.spec.attributes);
    let entries: usize = entries.map(|(name, value)| FRAME_BYTES + text(name) + text(value)).sum();
    let policies: usize = device.spec.policies.iter().map(|policy| text(policy)).sum();
    let own = text(&device.name) + text(&device.owner) + text(device.tenant.as_str());
    let device_type = device.spec.device_type.as_deref().map_or(0, text);
    // The device, its metadata, and whether it is enabled.
    3 * FRAME_BYTES + own + device_type + policies + entries
}

fn numbered(count: &CountSource, devices_max: u64) -> Result<Members, ApiError> {
    let field = "spec.source.count.devices";
    if count.devices > devices_max {
        return Err(
            ApiError::invalid(field, "too many devices (operator.fleet_devices_max)").over(devices_max, count.devices)
        );
    }
    let last = 10_u64.saturating_pow(u32::from(count.digits)) - 1;
    if count.devices > last {
        let message = "more devices than spec.source.count.digits can number";
        return Err(ApiError::invalid(field, message).over(last, count.devices));
    }
    Ok(Members::Numbered(count.clone()))
}

fn numbered_name(count: &CountSource, number: u64) -> String {
    format!("{}{number:0digits$}", count.prefix, digits = usize::from(count.digits))
}

fn listed(field: &str, mut rows: Vec<Row>, devices_max: u64) -> Result<Members, ApiError> {
    if rows.len() as u64 > devices_max {
        return Err(ApiError::invalid(field, "too many devices").over(devices_max, rows.len()));
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(twice) = rows.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(ApiError::invalid(field, "a device is named twice").over("once", &twice[0].name));
    }
    Ok(Members::Listed(rows))
}

/// One walk along the fleet and the registry's list.
pub struct Walk<'a> {
    fleet: &'a Fleet,
    /// Place of the next device of the fleet.
    place: usize,
    /// Places of devices that have to be written.
    pub put: Vec<usize>,
    /// Names of devices that are the fleet's no more.
    pub delete: Vec<String>,
    /// Places of devices whose shadows want what is not reported, those that have failed aside; `None`: they are not known.
    open: Option<HashSet<usize>>,
    tally: Tally,
}

/// How a fleet is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// As declared, those just written among them.
    pub registered: i64,
    pub connected: i64,
    /// Of those registered; `None`: nobody knows.
    pub converged: Option<i64>,
    pub failed: i64,
    pub first_errors: Vec<FleetError>,
    /// Devices that were there and were otherwise.
    pub changed: i64,
}

impl<'a> Walk<'a> {
    /// `open`: the places of the devices whose shadows want what is not reported, where that is known.
    pub fn new(fleet: &'a Fleet, open: Option<HashSet<usize>>) -> Self {
        Self { fleet, place: 0, put: Vec::new(), delete: Vec::new(), open, tally: Tally::default() }
    }

    /// Compares a page of the registry's list, which follows the page before.
    pub fn page(&mut self, devices: &[FoundDevice]) {
        for found in devices {
            self.up_to(&found.name);
            let is_next = self.place < self.fleet.len() && self.fleet.name(self.place) == found.name;
            match (is_next, found.object.owner == self.fleet.owner) {
                (true, true) => self.compare(found),
                (true, false) => self.foreign(found),
                (false, true) => self.delete.push(found.name.clone()),
                (false, false) => {}
            }
            self.place += usize::from(is_next);
        }
    }

    /// The list has ended: what is left of the fleet is not there.
    pub fn end(&mut self) {
        self.put.extend(self.place..self.fleet.len());
        self.place = self.fleet.len();
    }

    /// Devices before this name are not there.
    fn up_to(&mut self, name: &str) {
        while self.place < self.fleet.len() && self.fleet.name(self.place).as_str() < name {
            self.put.push(self.place);
            self.place += 1;
        }
    }

    fn compare(&mut self, found: &FoundDevice) {
        let wanted = self.fleet.wanted(self.place);
        self.tally.connected += i64::from(found.presence.connected);
        if wanted.spec == found.object.spec && wanted.labels == found.object.labels {
            self.tally.registered += 1;
        } else {
            self.tally.changed += 1;
            self.put.push(self.place);
        }
    }

    fn foreign(&mut self, found: &FoundDevice) {
        let message = match found.object.owner.as_str() {
            "" => "was made elsewhere; delete it there".to_owned(),
            owner => format!("is kept by {owner}"),
        };
        self.fail(found.name.clone(), message);
    }

    /// The answer to a bulk write of `count` devices.
    pub fn written(&mut self, count: usize, refusals: Vec<Refusal>) {
        self.tally.registered += count as i64 - refusals.len() as i64;
        for Refusal { name, error } in refusals {
            self.fail(name, told(&error));
        }
    }

    /// A device is not as declared.
    pub fn fail(&mut self, device: String, message: String) {
        if let (Some(open), Some(place)) = (&mut self.open, self.fleet.place(&device)) {
            open.remove(&place);
        }
        let tally = &mut self.tally;
        tally.failed += 1;
        if tally.first_errors.len() < ERRORS_MAX {
            tally.first_errors.push(FleetError { device, message });
        }
    }

    /// What it came to, once the list has ended and all is written.
    pub fn tally(self) -> Tally {
        let converged = self.open.map(|open| self.tally.registered - open.len() as i64);
        Tally { converged, ..self.tally }
    }
}

impl Tally {
    /// Those of some devices that `owner` keeps, as they are. `open`: devices whose shadows want what is not reported, where that
    /// is known.
    pub fn count(&mut self, owner: &str, devices: &[FoundDevice], open: Option<&HashSet<String>>) {
        let ours = || devices.iter().filter(move |device| device.object.owner == owner);
        self.registered += ours().count() as i64;
        self.connected += ours().filter(|device| device.presence.connected).count() as i64;
        let converged = open.map(|open| ours().filter(|device| !open.contains(&device.name)).count() as i64);
        self.converged = converged.map(|more| self.converged.unwrap_or(0) + more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{Found, Presence};

    const OWNER: &str = "kubernetes/fleets/f";

    fn spec(source: FleetSource) -> DeviceFleetSpec {
        DeviceFleetSpec { template: FleetTemplate::default(), source }
    }

    fn count(devices: u64, digits: u8) -> DeviceFleetSpec {
        let count = CountSource { devices, prefix: "s-".into(), digits };
        spec(FleetSource { count: Some(count), ..FleetSource::default() })
    }

    fn fleet(spec: &DeviceFleetSpec, table: Option<&str>) -> Result<Fleet, ApiError> {
        Fleet::new(TenantId::new("home").expect("valid"), OWNER.into(), spec, table, 1_000)
    }

    fn found(name: &str, owner: &str, connected: bool) -> FoundDevice {
        let spec = DeviceSpec::default();
        let object = Found { labels: BTreeMap::new(), spec, owner: owner.into(), revision: 1, generation: 1 };
        let presence = Presence { ever_seen: connected, connected, changed_ms: 0 };
        FoundDevice { name: name.into(), object, presence }
    }

    #[test]
    fn a_typo_is_refused_with_the_limit_and_the_value() {
        let refused = fleet(&count(10_000_000, 9), None).expect_err("too many");
        assert_eq!((refused.limit.as_deref(), refused.value.as_deref()), (Some("1000"), Some("10000000")));
        assert_eq!(fleet(&count(1_000, 4), None).expect("at the limit").len(), 1_000);
        let refused = fleet(&count(100, 2), None).expect_err("two digits");
        assert_eq!((refused.limit.as_deref(), refused.value.as_deref()), (Some("99"), Some("100")));
        assert_eq!(fleet(&spec(FleetSource::default()), None).expect_err("none").field.as_deref(), Some("spec.source"));
        let names = Some(vec!["a".to_owned(), "b".into(), "a".into()]);
        let refused = fleet(&spec(FleetSource { names, ..FleetSource::default() }), None).expect_err("twice");
        assert_eq!(refused.value.as_deref(), Some("a"));
    }

    #[test]
    fn a_walk_finds_what_is_missing_changed_foreign_and_left_over() {
        let fleet = fleet(&count(6, 1), None).expect("valid");
        let mut walk = Walk::new(&fleet, None);
        let mut changed = found("s-3", OWNER, true);
        changed.object.spec.enabled = false;
        walk.page(&[found("a", "", false), found("s-2", OWNER, true), changed]);
        walk.page(&[found("s-4", "kubernetes", false), found("s-7", OWNER, false), found("z", OWNER, false)]);
        walk.end();
        assert_eq!(walk.put.iter().map(|place| fleet.name(*place)).collect::<Vec<_>>(), ["s-1", "s-3", "s-5", "s-6"]);
        assert_eq!(walk.delete, ["s-7", "z"]);
        assert_eq!((walk.tally.registered, walk.tally.connected, walk.tally.changed), (1, 2, 1));
        assert_eq!(walk.tally.first_errors[0].message, "is kept by kubernetes");
        walk.written(4, vec![Refusal { name: "s-5".into(), error: ApiError::invalid("spec.type", "bad") }]);
        let tally = walk.tally();
        assert_eq!((tally.registered, tally.failed, tally.converged), (4, 2, None));
        assert_eq!(tally.first_errors[1].message, "spec.type: bad");
    }

    #[test]
    fn registered_devices_whose_shadows_want_nothing_are_converged() {
        let fleet = fleet(&count(6, 1), None).expect("valid");
        let open = ["s-1", "s-2", "s-4", "s-5", "s-7"].into_iter().filter_map(|name| fleet.place(name)).collect();
        let mut walk = Walk::new(&fleet, Some(open));
        // Of the open ones s-1 is new, s-2 is there, s-4 is another's and s-5 is refused.
        walk.page(&[found("s-2", OWNER, true), found("s-3", OWNER, true), found("s-4", "kubernetes", true)]);
        walk.end();
        walk.written(3, vec![Refusal { name: "s-5".into(), error: ApiError::invalid("spec.type", "bad") }]);
        let tally = walk.tally();
        assert_eq!((tally.registered, tally.converged), (4, Some(2)));
    }

    #[test]
    fn a_device_is_found_by_its_name_alone() {
        let names = Some(vec!["b".to_owned(), "a".into()]);
        for spec in [count(12, 3), spec(FleetSource { names, ..FleetSource::default() })] {
            let fleet = fleet(&spec, None).expect("valid");
            for place in 0..fleet.len() {
                assert_eq!(fleet.place(&fleet.name(place)), Some(place));
            }
            for other in ["", "c", "s-", "s-000", "s-013", "s-1", "s-0001", "s-+01", "s-18446744073709551616"] {
                assert_eq!(fleet.place(other), None, "{other}");
            }
        }
    }

    #[test]
    fn a_fleet_that_is_all_there_needs_nothing() {
        let fleet = fleet(&count(3, 1), None).expect("valid");
        let mut walk = Walk::new(&fleet, None);
        walk.page(&["s-1", "s-2", "s-3"].map(|name| found(name, OWNER, false)));
        walk.end();
        assert_eq!((walk.put.len(), walk.delete.len(), walk.tally.registered), (0, 0, 3));
    }

    #[test]
    fn an_empty_type_is_none_as_in_the_registry() {
        let mut untyped = count(1, 1);
        untyped.template.device_type = Some(String::new());
        assert_eq!(fleet(&untyped, None).expect("valid").wanted(0).spec.device_type, None);
    }

    #[test]
    fn a_bulk_call_is_bounded_by_devices_and_by_bytes() {
        let some = |devices: usize, bytes: usize| -> Vec<Wanted<DeviceSpec>> {
            let mut spec = count(devices as u64, 4);
            spec.template.attributes.insert("a".into(), "x".repeat(bytes));
            let fleet = fleet(&spec, None).expect("valid");
            (0..fleet.len()).map(|place| fleet.wanted(place)).collect()
        };
        let sizes = |devices: &[Wanted<DeviceSpec>]| parts(devices).iter().map(|part| part.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&some(0, 1)), [0; 0]);
        assert_eq!(sizes(&some(BULK_MAX, 1)), [500]);
        assert_eq!(sizes(&some(BULK_MAX + 1, 1)), [500, 1]);
        assert_eq!(sizes(&some(5, BULK_BYTES_MAX / 2 - 100)), [2, 2, 1]);
        assert_eq!(sizes(&some(2, BULK_BYTES_MAX + 1)), [1, 1], "one is always sent");
        let all = some(5, BULK_BYTES_MAX / 2 - 100);
        assert_eq!(parts(&all).concat(), all);
    }

    #[test]
    fn the_errors_of_a_status_are_bounded() {
        let fleet = fleet(&count(1, 1), None).expect("valid");
        let mut walk = Walk::new(&fleet, None);
        (0..50).for_each(|i| walk.fail(format!("d{i}"), "bad".into()));
        let tally = walk.tally();
        assert_eq!((tally.failed, tally.first_errors.len()), (50, ERRORS_MAX));
    }

    #[test]
    fn a_row_comes_on_top_of_the_template() {
        let mut table = spec(FleetSource {
            csv: Some(crate::crd::CsvSource { config_map: "m".into(), key: "k".into() }),
            ..FleetSource::default()
        });
        table.template.labels.insert("site".into(), "north".into());
        table.template.device_type = Some("generic".into());
        let fleet = fleet(&table, Some("name,type,labels\nb,,\na,pump,site=south\n")).expect("valid");
        let (a, b) = (fleet.wanted(0), fleet.wanted(1));
        assert_eq!(
            (a.name.as_str(), a.labels["site"].as_str(), a.spec.device_type.as_deref()),
            ("a", "south", Some("pump"))
        );
        assert_eq!(
            (b.name.as_str(), b.labels["site"].as_str(), b.spec.device_type.as_deref()),
            ("b", "north", Some("generic"))
        );
    }
}
