//! The console's pages: who gets in, what a session may do, and that nothing of it comes from elsewhere.

use serde_json::{Value, json};

use crate::running::{Running, TOKEN};

/// A browser with a session, as far as cookies and forms go.
struct Browser<'a> {
    gateway: &'a Running,
    cookie: String,
    csrf: String,
}

fn link(gateway: &Running) -> String {
    let (status, link) = gateway.ask("POST", "/api/v1/tenants/home/console-links", Some(json!({})));
    assert_eq!((status, &link["durationS"]), (201, &json!(120)), "{link}");
    link["path"].as_str().and_then(|path| path.strip_prefix("/open#")).expect("a code").to_owned()
}

impl<'a> Browser<'a> {
    fn open(gateway: &'a Running) -> Self {
        let (status, headers, _) = gateway.raw("POST", "/open", &[], &link(gateway));
        let cookie = headers["set-cookie"].to_str().expect("text").to_owned();
        assert_eq!(status, 204);
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Path=/"),
            "{cookie}"
        );
        let cookie = cookie.split(';').next().expect("a pair").to_owned();
        let mut browser = Self { gateway, cookie, csrf: String::new() };
        let (_, page) = browser.get("/");
        let csrf = page.split("data-csrf=\"").nth(1).and_then(|rest| rest.split('"').next());
        browser.csrf = csrf.expect("every page has it").to_owned();
        browser
    }

    fn get(&self, path: &str) -> (u16, String) {
        let (status, _, text) = self.gateway.raw("GET", path, &[("cookie", &self.cookie)], "");
        (status, text)
    }

    fn form(&self, path: &str, form: &str) -> (u16, String) {
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let (status, _, text) = self.gateway.raw("POST", path, &[("cookie", &self.cookie), kind], form);
        (status, text)
    }
}

#[test]
fn a_page_without_a_session_says_how_to_get_one() {
    let gateway = Running::start();
    for path in ["/", "/devices/d", "/live", "/connect"] {
        let (status, headers, page) = gateway.raw("GET", path, &[], "");
        assert_eq!((status, headers["content-type"].to_str().ok()), (401, Some("text/html; charset=utf-8")), "{path}");
        assert!(page.contains("drover open"), "{page}");
    }
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(gateway.raw("GET", "/", &[("authorization", &bearer)], "").0, 401, "pages are for sessions");
    let (status, _, page) = gateway.raw("GET", "/nowhere", &[("accept", "text/html")], "");
    assert!(status == 401 && page.contains("drover open"));
    let (status, refused) = gateway.send("GET", "/api/v1/devices", &[("accept", "text/html")], "");
    assert_eq!((status, &refused["error"]["code"]), (401, &json!("unauthenticated")));
}

#[test]
fn a_link_opens_one_session_and_signing_out_ends_it() {
    let gateway = Running::start();
    let code = link(&gateway);
    assert_eq!(gateway.raw("POST", "/open", &[], &code).0, 204);
    for used in [code.as_str(), "", "nonsense", &"x".repeat(200)] {
        let (status, refused) = gateway.send("POST", "/open", &[], used);
        assert!(status == 401 || status == 400, "{status}: {refused}");
    }
    let browser = Browser::open(&gateway);
    assert_eq!(browser.get("/").0, 200);
    assert_eq!(browser.form("/close", "csrf=wrong").0, 403);
    assert_eq!(browser.form("/close", &format!("csrf={}", browser.csrf)).0, 303);
    assert_eq!(browser.get("/").0, 401);
}

#[test]
fn a_session_reads_by_its_cookie_and_changes_only_with_its_secret() {
    let gateway = Running::start();
    let browser = Browser::open(&gateway);
    let cookie = ("cookie", browser.cookie.as_str());
    let device = json!({"metadata": {"name": "d"}}).to_string();
    let path = "/api/v1/tenants/home/devices";
    assert_eq!(gateway.send("GET", path, &[cookie], "").0, 200);
    for secret in [&[][..], &[("x-drover-csrf", "wrong")]] {
        let (status, refused) = gateway.send("POST", path, &[&[cookie], secret].concat(), &device);
        assert_eq!((status, &refused["error"]["code"]), (403, &json!("permission_denied")), "{refused}");
    }
    assert_eq!(gateway.send("POST", path, &[cookie, ("x-drover-csrf", &browser.csrf)], &device).0, 201);
    let (status, refused) =
        gateway.send("POST", "/api/v1/console-links", &[cookie, ("x-drover-csrf", &browser.csrf)], "");
    assert_eq!((status, &refused["error"]["code"]), (401, &json!("unauthenticated")), "a session makes no sessions");
}

#[test]
fn a_name_becomes_a_device_with_a_program_for_it() {
    let gateway = Running::start();
    let browser = Browser::open(&gateway);
    assert!(browser.get("/").1.contains("No device yet"));
    assert!(browser.get("/connect").1.contains("name=\"name\""));
    let form = |name: &str| format!("csrf={}&name={name}", browser.csrf);
    assert_eq!(browser.form("/connect", "csrf=wrong&name=d").0, 403);
    let (status, page) = browser.form("/connect", &form("thermo-1"));
    assert_eq!(status, 200, "{page}");
    for part in
        ["paho.mqtt", "PubSubClient", "mosquitto_pub", "/update?api_key=once", "home/thermo-1", "127.0.0.1:1883"]
    {
        assert!(page.contains(part), "{part} in {page}");
    }
    let (status, page) = browser.form("/connect", &form("thermo-1"));
    assert!(status == 409 && page.contains("There is a device thermo-1 already"), "{page}");
    assert_eq!(browser.form("/connect", &form("cut-1")).0, 503, "made, and without a token");
    let (status, page) = browser.form("/connect", &form("cut-1"));
    assert!(status == 200 && page.contains("home/cut-1"), "{page}");
    let (status, page) = browser.form("/connect", &form("%3Cscript%3E"));
    assert!(status == 400 && page.contains("device contains") && !page.contains("<script>alert"), "{page}");
    assert!(!page.contains("value=\"<script>\""), "what was typed is shown escaped");

    let (status, page) = browser.get("/devices/thermo-1");
    assert!(status == 200 && page.contains("21.5"), "{page}");
    assert!(page.contains("Disconnected") && page.contains("last message <time datetime=\"2023-11-14T22:13:21Z\""));
    let (_, page) = browser.get("/");
    assert!(page.contains("Disconnected") && page.contains("<time datetime=\"2023-11-14T22:13:21Z\""), "{page}");
    assert_eq!(browser.form("/connect", &form("again-1")).0, 200);
    let (_, page) = browser.get("/devices/again-1");
    assert!(page.contains("Never connected") && !page.contains("1970-01-01T00:00:01Z\"></time></span></p>"), "{page}");
    let (status, page) = browser.form("/devices/thermo-1/program", &format!("csrf={}", browser.csrf));
    assert!(status == 200 && page.contains("mosquitto_pub"), "{page}");
    let (status, page) = browser.get("/devices/none");
    assert!(status == 404 && page.contains("Not found"), "{page}");
}

#[test]
fn long_lists_come_in_pages() {
    let gateway = Running::start();
    for i in 0..60 {
        let device = json!({"metadata": {"name": format!("d-{i:02}")}});
        assert_eq!(gateway.ask("POST", "/api/v1/tenants/home/devices", Some(device)).0, 201);
    }
    let browser = Browser::open(&gateway);
    let (_, first) = browser.get("/");
    assert!(first.contains("d-49") && !first.contains("d-50") && first.contains("/?after=d-49"), "{first}");
    let (_, second) = browser.get("/?after=d-49");
    assert!(second.contains("d-50") && second.contains("d-59") && !second.contains("d-49</a>"), "{second}");
    assert!(!second.contains("rel=\"next\""), "{second}");
}

#[test]
fn pages_are_kept_by_nobody_and_assets_for_ever_and_nothing_comes_from_elsewhere() {
    let gateway = Running::start();
    let browser = Browser::open(&gateway);
    let (_, headers, page) = gateway.raw("GET", "/devices/d", &[("cookie", &browser.cookie)], "");
    assert_eq!(headers["cache-control"], "no-store");
    let policy = headers["content-security-policy"].to_str().expect("text");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let (_, page) = (page, browser.get("/").1);
    assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains("onclick"), "{page}");
    for part in page.split(['"']).filter(|part| part.starts_with("/assets/")) {
        let (status, headers, _) = gateway.raw("GET", part, &[], "");
        assert_eq!(
            (status, headers["cache-control"].to_str().ok()),
            (200, Some("public, max-age=31536000, immutable")),
            "{part}"
        );
    }
    let (status, refused) = gateway.send("GET", "/assets/0/console.css", &[], "");
    assert_eq!((status, &refused["error"]["code"]), (404, &json!("not_found")), "of another version");
    let (status, refused): (u16, Value) = gateway.send("GET", "/assets/x/../../Cargo.toml", &[], "");
    assert!(status == 404 || status == 401, "{refused}");
}
