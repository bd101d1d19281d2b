//! Compiles `proto/` without protoc: code, and the descriptors that reflection tells.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    let files = ["types", "registry", "rules", "ingress", "shadow", "storage"]
        .map(|name| format!("{root}/drover/{name}/v1/{name}.proto"));
    println!("cargo:rerun-if-changed={root}");
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).open_files(files)?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
