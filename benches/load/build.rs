//! Compiles the proto.

fn main() {
    let files = protox::compile(["proto/etcd.proto"], ["proto"]).expect("the proto is valid");
    tonic_prost_build::configure().bytes(".").build_server(false).compile_fds(files).expect("it compiles");
}
