//! Promises about device types and groups.

use std::collections::BTreeMap;

use drover_types::TenantId;
use drover_types::object::{
    DeviceGroupSpec, DeviceTypeSpec, FieldType, LabelOperator, LabelRequirement, LabelSelector, TypeField,
};

use super::{Factory, create, delete, object};
use crate::object::{Kind, Object, Spec};

fn device_type(tenant: &TenantId, name: &str) -> Object {
    let field = |field_type| TypeField { field_type, unit: Some("°C".into()), description: None };
    let fields = [("temperature".to_owned(), field(FieldType::Double)), ("mode".to_owned(), field(FieldType::Text))];
    let spec = DeviceTypeSpec { description: Some(name.to_owned()), fields: fields.into() };
    object(tenant, name, Spec::DeviceType(spec))
}

fn group(tenant: &TenantId, name: &str, parent: Option<&str>) -> Object {
    let old = LabelRequirement { key: "old".into(), operator: LabelOperator::NotIn, values: vec!["yes".into()] };
    let match_labels = BTreeMap::from([("room".to_owned(), "hall".to_owned())]);
    let selector = LabelSelector { match_labels, match_expressions: vec![old] };
    let (types, parent) = (vec!["lamp".to_owned()], parent.map(str::to_owned));
    object(tenant, name, Spec::DeviceGroup(DeviceGroupSpec { description: None, selector, types, parent }))
}

pub(super) async fn types_and_groups_are_kept_and_told_as_they_are(factory: &dyn Factory) {
    let store = factory.empty().await;
    let tenant = TenantId::default_tenant();
    let lamp = create(&*store, device_type(&tenant, "lamp")).await;
    let hall = create(&*store, group(&tenant, "lamp", Some("house"))).await;
    let store = factory.reopened(store).await;
    for (at, object) in [lamp, hall].into_iter().enumerate() {
        assert_eq!(store.get(&object.key()).await, Ok(Some(object.clone())));
        let told = store.outbox(9).await.expect("readable")[at].change.clone();
        assert_eq!((told.key, told.after), (object.key(), Some(object.clone())));
        delete(&*store, &object).await;
        assert_eq!(store.get(&object.key()).await, Ok(None));
    }
}

pub(super) async fn types_and_groups_are_listed_by_kind_and_tenant(factory: &dyn Factory) {
    let store = factory.empty().await;
    let (tenant, other) = (TenantId::default_tenant(), TenantId::new("default-2").expect("valid"));
    for name in ["b", "a.c", "a"] {
        create(&*store, device_type(&tenant, name)).await;
        create(&*store, group(&tenant, &format!("g-{name}"), None)).await;
    }
    create(&*store, device_type(&other, "z")).await;
    create(&*store, group(&other, "g-z", None)).await;
    let names = async |kind, tenant: &TenantId, after: &str| {
        let page = store.page(kind, tenant, after, 2).await.expect("readable");
        page.into_iter().map(|object| object.meta.name).collect::<Vec<_>>()
    };
    assert_eq!(names(Kind::DeviceType, &tenant, "").await, ["a", "a.c"]);
    assert_eq!(names(Kind::DeviceType, &tenant, "a.c").await, ["b"]);
    assert_eq!(names(Kind::DeviceGroup, &tenant, "").await, ["g-a", "g-a.c"]);
    assert_eq!(names(Kind::DeviceGroup, &tenant, "g-a.c").await, ["g-b"]);
    assert_eq!(names(Kind::DeviceType, &other, "").await, ["z"]);
    assert_eq!(names(Kind::DeviceGroup, &other, "").await, ["g-z"]);
    assert_eq!(names(Kind::Device, &tenant, "").await, Vec::<String>::new());
}
