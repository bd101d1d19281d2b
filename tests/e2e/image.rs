//! The image and the Tiltfile, as far as they can be tried without an image builder and without Tilt: what they name is there, and
//! the executable runs in the root file system that the image has.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use drover_tests::{executable, lines_of, script, tool};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(root().join(name)).with_context(|| name.to_owned())
}

/// The instructions of the Dockerfile: lines that go on are one.
fn instructions() -> anyhow::Result<Vec<String>> {
    let text = read("Dockerfile")?.replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect())
}

/// What the build is given of the repository, by `COPY FROM… TO`.
fn copied() -> anyhow::Result<Vec<String>> {
    let instructions = instructions()?;
    let copies =
        instructions.iter().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.contains("--from="));
    Ok(copies.flat_map(|line| line.split(' ').rev().skip(1).map(str::to_owned).collect::<Vec<_>>()).collect())
}

#[test]
fn the_image_is_built_of_what_is_there_with_the_compiler_of_the_repository() -> anyhow::Result<()> {
    let (copied, instructions) = (copied()?, instructions()?);
    let ignored = read(".dockerignore")?;
    let let_in: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for path in &copied {
        ensure!(root().join(path).exists(), "Dockerfile copies {path}, which is not there");
        let first = path.split('/').next().unwrap_or(path);
        ensure!(let_in.contains(&first), ".dockerignore keeps {path} from the build");
    }
    // Every member of the workspace has to be there, or cargo does not begin.
    for member in members(&read("Cargo.toml")?)? {
        let folder = member.trim_end_matches("/*");
        ensure!(copied.iter().any(|path| path == folder), "Dockerfile leaves out {member} of the workspace");
    }
    let toolchain = read("rust-toolchain.toml")?;
    let channel = toolchain.split('"').nth(1).context("a channel")?;
    ensure!(instructions[0].starts_with(&format!("FROM rust:{channel}-")), "{} is not Rust {channel}", instructions[0]);
    ensure!(instructions.iter().any(|line| line == "USER 65532:65532"), "the user is not the chart's");
    ensure!(instructions.iter().any(|line| line == "FROM scratch"), "the image is of nothing else");
    Ok(())
}

/// The members of the workspace, as they are written.
fn members(text: &str) -> anyhow::Result<Vec<String>> {
    let (_, members) = text.split_once("\nmembers = [").context("members")?;
    let (members, _) = members.split_once(']').context("an end of the members")?;
    Ok(members.split(',').map(|member| member.trim().trim_matches('"').to_owned()).collect())
}

#[test]
fn the_executable_runs_in_the_images_root_as_the_images_user() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let image = directory.path().join("root");
    let assemble = root().join("deploy/image/assemble");
    lines_of(Command::new(assemble).arg(executable()?).arg(&image), b"")?;
    ensure!(!image.join("bin/sh").exists(), "there is a shell");
    // Everybody may pass the test's own directory.
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let Some(chroot) = tool("chroot").filter(|_| rustix::process::geteuid().is_root()) else {
        println!("NOT RUN: the executable in the image's root (chroot, and being root, are missing)");
        return Ok(());
    };
    let mut command = Command::new(chroot);
    command.arg("--userspec=65532:65532").arg(&image).args(["/usr/local/bin/drover", "--version"]).env_clear();
    let said = lines_of(&mut command, b"")?;
    ensure!(said.len() == 1 && said[0].starts_with("drover "), "{said:?}");
    Ok(())
}

#[test]
fn the_tiltfile_asks_for_what_is_there() -> anyhow::Result<()> {
    let Some(python) = tool("python3") else { return Ok(()) };
    let mut command = Command::new(python);
    let said = lines_of(command.arg(script("tiltfile.py")).arg("Tiltfile").current_dir(root()), b"")?;
    let calls: Vec<Value> = said.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let of = |name: &'static str| calls.iter().filter(move |call| call["call"] == name);
    let there = |path: &Value| path.as_str().is_some_and(|path| root().join(path).exists());

    let build = of("docker_build").next().context("an image")?;
    ensure!(there(&build["named"]["dockerfile"]), "{build}");
    let only: Vec<&str> = build["named"]["only"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for path in copied()? {
        ensure!(only.iter().any(|let_in| path.starts_with(let_in)), "the Tiltfile keeps {path} from the build");
    }
    let chart = of("helm").next().context("a chart")?;
    ensure!(there(&chart["arguments"][0]), "{chart}");
    ensure!(chart["named"]["values"].as_array().is_some_and(|files| files.iter().all(there)), "{chart}");
    let values = read("helm/drover/values.yaml")?;
    let image = build["arguments"][0].as_str().context("a name")?;
    ensure!(values.contains(&format!("repository: {image}\n")), "the chart has another image than {image}");

    for resource in of("local_resource") {
        let command = resource["named"]["cmd"].as_str().context("a command")?;
        let paths = command.split_whitespace().filter(|word| word.starts_with("deploy/"));
        for path in paths {
            ensure!(root().join(path).exists(), "{command} names {path}, which is not there");
        }
    }
    ensure!(of("local_resource").filter(|one| one["named"]["trigger_mode"] == "manual").count() == 2, "two buttons");
    Ok(())
}
