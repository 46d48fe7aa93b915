//! Compiles the protos with `protox`, so that building Ringfort needs no `protoc`.

use std::path::{Path, PathBuf};
use std::{env, error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    // In full: `proto/kv.proto` below it would be taken for a path through it.
    let root = Path::new(&env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?).join("proto");
    let public = [
        "ringfort/v1/kv.proto",
        "ringfort/v1/cluster.proto",
        "family/family.proto",
        "proto/kv.proto",
        "kvstore/v1/kvstore.proto",
        "kv/kv.proto",
        "grpc/health/v1/health.proto",
    ];
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_source_info(true).include_imports(true).open_files(public)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    // No business of clients.
    compiler.open_file("ringfort/internal/v1/peer.proto")?;
    // Keys and values stay slices of the buffer that they arrived in.
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::FittingCodec")
        .extern_path(".ringfort.v1.SessionRequest", "crate::frame::SessionRequest")
        .extern_path(".ringfort.v1.WriteRequest", "crate::frame::WriteRequest")
        .extern_path(".ringfort.v1.GetManyRequest", "crate::frame::GetManyRequest")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
