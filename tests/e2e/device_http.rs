//! HTTP for devices on the port of the console: one port, two services, and neither answers for the other.

use std::process::Command;

use drover_tests::{Platform, lines_of, tool};

#[test]
fn the_curl_line_of_a_device_works_as_printed_and_its_numbers_become_points() -> anyhow::Result<()> {
    let Some(_curl) = tool("curl") else { return Ok(()) };
    let mut platform = Platform::start()?;
    platform.cli(&["device", "create", "lamp-1"])?;
    let program = platform.cli(&["device", "snippet", "lamp-1", "--lang", "curl"])?;
    let mut entries = Vec::new();
    for _ in 0..2 {
        let printed = lines_of(Command::new("sh").args(["-s", "--"]), program.as_bytes())?;
        entries.push(printed.last().map_or(Ok(0), |line| line.parse::<u64>())?);
    }
    assert!(entries[0] > 0 && entries[0] < entries[1], "{entries:?}");

    let server = format!("http://127.0.0.1:{}", platform.port(8080));
    let wrong = ["-s", "-o", "/dev/stdout", "-w", " %{http_code}", "-d", "field1=5"];
    let refused = lines_of(Command::new("curl").args(wrong).arg(format!("{server}/update?api_key=wrong")), b"")?;
    assert_eq!(refused, ["0 400"]);

    let token = std::fs::read_to_string(platform.data().join("admin.token"))?;
    let url = format!("{server}/api/v1/devices/lamp-1/telemetry?field=field1");
    platform.until("in storage", |_| {
        let mut answer = ureq::get(&url).header("authorization", format!("Bearer {}", token.trim())).call()?;
        Ok(answer.body_mut().read_to_string()?.matches("21.5").count() == 2)
    })?;
    let document = ureq::get(format!("{server}/api/openapi.json")).call()?.body_mut().read_to_string()?;
    assert!(document.contains("/api/v1/devices/{device}/telemetry"), "the gateway answers on the same port");
    Ok(())
}
