//! Makes code of the services in `proto/`, without a protoc.

use std::{env, error::Error, fs, path::Path};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let described = protox::compile(["meed/transactions/v1/transactions.proto"], ["proto"])?;
    let out = env::var("OUT_DIR")?;
    // What reflection shows.
    fs::write(
        Path::new(&out).join("descriptors.bin"),
        described.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        .btree_map(".")
        .compile_fds(described)?;
    Ok(())
}
