//! Tells `ringfort version` what it is built for and by which compiler: facts of the build that are the same whenever
//! and wherever it is repeated. No clock is read, no path is kept.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let fact = |name: &str| std::env::var(name).unwrap_or_else(|_| "unknown".into());
    let compiler = Command::new(fact("RUSTC")).arg("--version").output().ok();
    let compiler = compiler.and_then(|output| String::from_utf8(output.stdout).ok());
    let compiler = compiler.as_deref().map_or("unknown", str::trim);
    println!("cargo::rustc-env=BUILD_TARGET={}", fact("TARGET"));
    println!("cargo::rustc-env=BUILD_PROFILE={}", fact("PROFILE"));
    println!("cargo::rustc-env=BUILD_RUSTC={}", compiler.strip_prefix("rustc ").unwrap_or(compiler));
}
