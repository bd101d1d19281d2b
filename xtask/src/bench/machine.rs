//! What was measured where: machine, versions, and what else ran.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The machine's load, as `/proc/loadavg` has it.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.trim().to_owned()
}

/// Processors that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Machine and system, a line each: name and value.
pub fn facts(root: &Path) -> Vec<(&'static str, String)> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&cpu, "model name").unwrap_or("unknown").to_owned();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let descriptors = descriptors(&limits).map_or("unknown", |[_, most]| most);
    let commit = said("git", &["-C", &root.display().to_string(), "describe", "--always", "--dirty"]);
    vec![
        ("Day", said("date", &["-u", "+%Y-%m-%d"])),
        ("Commit", commit),
        ("Processor", format!("{model}, {} cores", cores())),
        ("Memory", kib.map_or("unknown".to_owned(), |kib| format!("{:.1} GiB", kib / 1024.0 / 1024.0))),
        ("System", said("uname", &["-sr"])),
        ("Descriptors a process may open", descriptors.to_owned()),
        ("Load before (`/proc/loadavg`)", load()),
    ]
}

/// How many descriptors a process may open by its `/proc/PID/limits` (proc(5)): as it is, and once it has asked for all.
pub fn descriptors(limits: &str) -> Option<[&str; 2]> {
    let mut words = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace();
    Some([words.next()?, words.next()?])
}

/// The first line that a program prints, wherever it does; empty if it cannot be run.
pub fn said(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

/// The value of a line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_the_first_line_of_its_name() {
        let text = "MemTotal:       24 kB\nMemFree:  1 kB\nmodel name\t: A CPU\nmodel name\t: B\n";
        assert_eq!((field(text, "MemTotal"), field(text, "model name")), (Some("24 kB"), Some("A CPU")));
        assert_eq!(field(text, "Swap"), None);
    }

    #[test]
    fn descriptors_are_as_many_as_now_and_as_at_most() {
        let limits = "Max processes   7   8   processes\nMax open files   1024   20000   files\n";
        assert_eq!(descriptors(limits), Some(["1024", "20000"]));
        assert_eq!(descriptors("Max processes   7   8   processes\n"), None);
    }

    #[test]
    fn what_a_program_says_is_its_first_line_and_nothing_if_it_is_missing() {
        assert_eq!(said("sh", &["-c", "echo one >&2; echo two >&2"]), "one");
        assert_eq!(said("there-is-no-such-program", &[]), "");
    }
}
