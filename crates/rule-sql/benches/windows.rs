//! A million open groups: time of a message, memory of a group, time to restore them. Prints, and judges nothing.

#![expect(clippy::disallowed_methods, reason = "what is measured is real time")]

use std::time::Instant;

use drover_rule_sql::{Groups, Message, Origin, Room, Rule};

const GROUPS: usize = 1_000_000;
const ROOM: Room = Room { groups: GROUPS, bytes: usize::MAX, groups_max: GROUPS, bytes_max: usize::MAX };
const RECEIVED_MS: u64 = 1_700_000_000_000;
const RULES: [&str; 2] = [
    "SELECT device().name AS d, count(*) AS n, avg(v) AS v, max(v) AS hi FROM '#' GROUP BY device(), TUMBLING(1h)",
    "SELECT device().name AS d, last(v) AS v FROM '#' GROUP BY device(), ABSENT(5m)",
];

fn main() {
    for sql in RULES {
        let rule = Rule::compile(sql).expect("compiles");
        let (before, started) = (resident_bytes(), Instant::now());
        let mut groups = Groups::default();
        for round in 0..2u64 {
            for number in 0..GROUPS {
                let (device, payload) = (format!("device-{number}"), format!("{{\"v\":{}.5}}", number % 40));
                let mut message = Message::new("a/b", Some(&device), RECEIVED_MS + round, payload.as_bytes());
                message.origin = Origin { device: Some(&device), ..Origin::default() };
                let taken = groups.take(&rule, &message, number as u64, 0, ROOM);
                assert!(taken.matched && taken.error.is_none());
            }
        }
        let took = started.elapsed();
        let kept = groups.changes();
        drop(groups);
        let restoring = Instant::now();
        let mut restored = Groups::default();
        for (key, state) in &kept {
            restored.restore(key, state.as_deref()).expect("readable");
        }
        // The first look at the clock finds out when each has something to do.
        restored.tick(&rule, RECEIVED_MS + 1);
        let (restored_in, bytes) = (restoring.elapsed(), restored.bytes());
        drop(kept);
        let per_group = |bytes: usize| bytes / GROUPS;
        println!(
            "{sql}\n  {:.2} µs a message, {} bytes a group in the log, {} resident, {GROUPS} restored in {restored_in:.2?}",
            took.as_secs_f64() * 1e6 / (2 * GROUPS) as f64,
            per_group(bytes),
            per_group(resident_bytes().saturating_sub(before)),
        );
    }
}

/// Memory of this process, as Linux tells it; 0 elsewhere.
fn resident_bytes() -> usize {
    const PAGE_BYTES: usize = 4_096;
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()));
    pages.unwrap_or_default() * PAGE_BYTES
}
