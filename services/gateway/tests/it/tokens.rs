//! API tokens: made and shown once, good for one tenant and one role, and gone at once when they are deleted.

use tokio::time::Instant;

use serde_json::{Value, json};

use crate::running::Running;
use crate::stream::Events;

fn create(gateway: &Running, tenant: &str, name: &str, role: &str) -> String {
    let order = json!({"name": name, "role": role});
    let (status, made) = gateway.ask("POST", &format!("/api/v1/tenants/{tenant}/tokens"), Some(order));
    assert_eq!(status, 201, "{made}");
    made["token"].as_str().expect("a token").to_owned()
}

fn ask(gateway: &Running, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    gateway.send(method, path, &[("authorization", &format!("Bearer {token}"))], body)
}

#[test]
fn a_token_is_made_listed_and_deleted_by_the_administrator_and_by_the_role_admin() {
    let gateway = Running::start();
    let order = json!({"name": "ci", "role": "viewer", "durationS": 60});
    let (status, made) = gateway.ask("POST", "/api/v1/tenants/home/tokens", Some(order));
    let expected = json!({
        "tenant": "home", "name": "ci", "role": "viewer", "createdBy": "administrator",
        "creationTimestamp": "1970-01-01T00:00:01Z", "expirationTimestamp": "1970-01-01T00:01:00Z",
        "token": "drt_home.ci.x",
    });
    assert_eq!((status, &made), (201, &expected));
    let admin = create(&gateway, "home", "ops", "admin");
    let (status, by_admin) =
        ask(&gateway, &admin, "POST", "/api/v1/tenants/home/tokens", r#"{"name": "b", "role": "editor"}"#);
    assert_eq!((status, &by_admin["createdBy"]), (201, &json!("token ops")));
    let (_, listed) = ask(&gateway, &admin, "GET", "/api/v1/tenants/home/tokens", "");
    let names: Vec<&str> =
        listed["items"].as_array().expect("items").iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, ["ci", "ops", "b"]);
    assert!(listed["items"][0].get("token").is_none(), "{listed}");
    assert_eq!(ask(&gateway, "drt_home.ci.x", "GET", "/api/v1/tenants/home/devices", "").0, 200);
    assert_eq!(ask(&gateway, &admin, "DELETE", "/api/v1/tenants/home/tokens/ci", "").0, 204);
    assert_eq!(ask(&gateway, "drt_home.ci.x", "GET", "/api/v1/tenants/home/devices", "").0, 401, "at once");
    for wrong in
        [json!({"name": "a"}), json!({"name": "a", "role": "root"}), json!({"name": "a", "role": "viewer", "x": 1})]
    {
        assert_eq!(gateway.ask("POST", "/api/v1/tokens", Some(wrong.clone())).0, 400, "{wrong}");
    }
}

#[test]
fn a_role_allows_what_it_says() {
    let gateway = Running::start();
    let [viewer, editor, admin] = ["viewer", "editor", "admin"].map(|role| create(&gateway, "home", role, role));
    let device = r#"{"metadata": {"name": "d"}}"#;
    for (method, path, body, allowed) in [
        ("GET", "devices", "", [200, 200, 200]),
        ("GET", "rules", "", [200, 200, 200]),
        ("POST", "console-links", "", [201, 201, 201]),
        ("POST", "devices", device, [403, 201, 409]),
        ("POST", "devices/d/credentials", r#"{"kind": "token"}"#, [403, 201, 201]),
        ("PATCH", "devices/d/shadow", r#"{"state": {}}"#, [403, 200, 200]),
        ("POST", "devices/d/commands", r#"{"name": "fan"}"#, [403, 202, 202]),
        ("GET", "devices/d/commands", "", [200, 200, 200]),
        ("PUT", "policies/p", r#"{"spec": {"statements": []}}"#, [403, 200, 200]),
        ("DELETE", "devices/d", "", [403, 200, 404]),
        ("POST", "query", r#"{"sql": "SELECT 1"}"#, [200, 200, 200]),
        ("GET", "tokens", "", [403, 403, 200]),
        ("POST", "tokens", r#"{"name": "more", "role": "admin"}"#, [403, 403, 201]),
        ("DELETE", "tokens/more", "", [403, 403, 204]),
        ("GET", "audit", "", [403, 403, 200]),
    ] {
        let path = format!("/api/v1/tenants/home/{path}");
        let found = [&viewer, &editor, &admin].map(|token| ask(&gateway, token, method, &path, body).0);
        assert_eq!(found, allowed, "{method} {path}");
    }
    // A name of a device that is a word of ours changes nothing of this.
    for name in ["console-links", "close", "tokens", "audit", "query"] {
        let path = format!("/api/v1/tenants/home/devices/{name}");
        assert_eq!(ask(&gateway, &viewer, "DELETE", &path, "").0, 403, "{path}");
    }
}

#[test]
fn of_other_tenants_a_token_learns_nothing() {
    let gateway = Running::start();
    let admin = create(&gateway, "home", "ops", "admin");
    let device = json!({"metadata": {"name": "secret"}});
    assert_eq!(gateway.ask("POST", "/api/v1/tenants/away/devices", Some(device)).0, 201);
    let mut answers = Vec::new();
    for (method, path) in [
        ("GET", "/api/v1/tenants/away/devices/secret"),
        ("GET", "/api/v1/tenants/away/devices/none"),
        ("GET", "/api/v1/tenants/nobody/devices"),
        ("GET", "/api/v1/tenants/away/tokens"),
        ("GET", "/api/v1/tenants/away/audit"),
        ("POST", "/api/v1/tenants/away/query"),
        ("DELETE", "/api/v1/tenants/away/tokens/x"),
        ("GET", "/api/v1/tenants/away/stream?filter=%23"),
        ("GET", "/api/v1/tenants/away/devices/secret/messages"),
        ("PUT", "/api/v1/tenants/away/rules/r"),
        ("POST", "/api/v1/tenants/away/console-links"),
        ("GET", "/api/v1/devices"),
        ("GET", "/api/v1/tenants/%68ome/devices"),
    ] {
        let (status, refused) = ask(&gateway, &admin, method, path, "{}");
        assert_eq!(status, 403, "{method} {path}: {refused}");
        answers.push(refused);
    }
    let message = "the token is one of tenant home: its paths are those under /api/v1/tenants/home";
    let expected = json!({"error": {"code": "permission_denied", "message": message}});
    assert!(answers.iter().all(|answer| *answer == expected), "{answers:?}");
}

#[test]
fn texts_that_are_no_token_in_force_are_refused_alike() {
    let gateway = Running::start();
    create(&gateway, "home", "ops", "admin");
    for wrong in ["drt_home.ops.y", "drt_home.none.x", "drt_", "drt_home", "DRT_home.ops.x"] {
        let (status, refused) = ask(&gateway, wrong, "GET", "/api/v1/tenants/home/devices", "");
        assert_eq!((status, &refused["error"]["code"]), (401, &json!("unauthenticated")), "{wrong}: {refused}");
    }
    let basic = [("authorization", "Basic drt_home.ops.x")];
    assert_eq!(gateway.send("GET", "/api/v1/tenants/home/devices", &basic, "").0, 401);
}

#[test]
fn a_deleted_tokens_stream_and_session_end_within_a_second() {
    let gateway = Running::start();
    let token = create(&gateway, "home", "look", "viewer");
    let bearer = format!("Bearer {token}");
    let (_, link) = gateway.send("POST", "/api/v1/tenants/home/console-links", &[("authorization", &bearer)], "");
    let code = link["path"].as_str().and_then(|path| path.strip_prefix("/open#")).expect("a code").to_owned();
    let (_, headers, _) = gateway.raw("POST", "/open", &[], &code);
    let cookie = headers["set-cookie"].to_str().expect("text").split(';').next().expect("a pair").to_owned();
    let page = |path: &str| gateway.raw("GET", path, &[("cookie", &cookie)], "").0;
    assert_eq!(page("/"), 200);
    let mut by_token = Events::open_with(&gateway, "filter=%23", ("authorization", &bearer));
    let mut by_session = Events::open_with(&gateway, "filter=%23", ("cookie", &cookie));

    let deleted = Instant::now();
    gateway.tokens.delete_elsewhere(&token);
    for events in [&mut by_token, &mut by_session] {
        let (name, data) = events.next().expect("why it ends");
        assert_eq!((name.as_str(), &data["error"]["code"]), ("error", &json!("unauthenticated")), "{data}");
        assert_eq!(events.next(), None);
    }
    assert!(deleted.elapsed().as_millis() < 1_000, "{:?}", deleted.elapsed());
    assert_eq!(page("/"), 401, "the session ended with its token");
    assert_eq!(gateway.send("GET", "/api/v1/tenants/home/devices", &[("authorization", &bearer)], "").0, 401);
}
