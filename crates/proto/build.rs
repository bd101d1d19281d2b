//! Compiles `proto/` without protoc: code, and the descriptors that reflection tells.

use std::fmt::Write;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    let own = ["types", "registry", "rules", "ingress", "shadow", "storage"];
    let mut files = own.map(|name| format!("{root}/drover/{name}/v1/{name}.proto")).to_vec();
    files.push(format!("{root}/drover/shadow/v1/commands.proto"));
    println!("cargo:rerun-if-changed={root}");
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).open_files(files)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let descriptors = compiler.file_descriptor_set();
    // The paths of all methods whose `idempotency_level` is anything but unknown.
    let mut idempotent = String::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                if method.options.as_ref().and_then(|options| options.idempotency_level).unwrap_or(0) != 0 {
                    writeln!(idempotent, "\"/{}.{}/{}\",", file.package(), service.name(), method.name())?;
                }
            }
        }
    }
    std::fs::write(out.join("idempotent.rs"), format!("&[\n{idempotent}]\n"))?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
