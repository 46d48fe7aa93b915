//! Tidy finds what it is there to find. Each test plants one violation.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::tidy::{self, Finding, arrows, bans, circles, dependencies, planted, scripts, sources};

fn workspace(packages: &[(&str, &[&str])]) -> Value {
    let package = |(name, uses): &(&str, &[&str])| {
        let dependencies: Vec<Value> = uses.iter().map(|name| json!({ "name": name })).collect();
        json!({ "name": name, "dependencies": dependencies })
    };
    json!({ "packages": packages.iter().map(package).collect::<Vec<_>>() })
}

fn arrow_findings(name: &str, uses: &[&str]) -> Vec<String> {
    let findings = arrows::check(&workspace(&[(name, uses)])).unwrap();
    findings.iter().map(ToString::to_string).collect()
}

#[test]
fn arrows_point_down_only() {
    assert!(arrow_findings("ringfort-node", &["ringfort-consensus", "ringfort-types", "bytes"]).is_empty());
    assert_eq!(
        arrow_findings("ringfort-ring", &["ringfort-storage"]),
        ["ringfort-ring: depends on ringfort-storage, but arrows between crates point down only"]
    );
    assert_eq!(arrow_findings("ringfort-sim", &["ringfort-server"]).len(), 1);
    assert_eq!(arrow_findings("xtask", &["ringfort-types"]).len(), 1);
    assert_eq!(arrow_findings("ringfort-cli", &["xtask"]).len(), 1);
    assert_eq!(arrow_findings("ringfort-extra", &[]).len(), 1);
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let root = TempDir::new().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join("crates").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for name in ["cli", "proto", "server", "types"] {
        write(&format!("{name}/src/lib.rs"), "");
    }
    write("client/src/a.rs", "\nuse crate::{\n    Error,\n    b::{C, D},\n};\n");
    write("client/src/b/mod.rs", "\nuse crate::e::F;\n");
    write("client/src/b/g.rs", "\nuse super::C;\nuse crate::a::H;\n");
    write("client/src/e.rs", "\nuse crate::i::J;\n");
    assert_eq!(circles::check(root.path()).unwrap(), []);
    write("client/src/e.rs", "\nuse crate::a::K;\n");
    let findings = circles::check(root.path()).unwrap();
    let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.len() == 1 && findings[0].contains("a, b, e import each other"), "{findings:?}");
}

#[test]
fn reserved_libraries_stay_where_they_belong() {
    assert!(arrow_findings("ringfort-server", &["tokio"]).is_empty());
    assert!(arrow_findings("ringfort-node", &["tokio"])[0].contains("without threads and sockets"));
    assert!(arrow_findings("ringfort-node", &["raft"])[0].contains("only ringfort-consensus"));
    assert!(arrow_findings("ringfort-shard", &["lsm-tree"])[0].contains("only ringfort-storage"));
    assert!(arrow_findings("ringfort-sim", &["rand"])[0].contains("nobody"));
}

#[test]
fn bugs_on_purpose_stay_with_the_simulator() {
    let package = |name: &str, kind: Option<&str>, features: &Value| {
        let dependency = json!({ "name": "ringfort-types", "kind": kind, "features": ["planted"] });
        json!({ "packages": [{ "name": name, "dependencies": [dependency], "features": features }] })
    };
    let count = |metadata: &Value| planted::check(metadata).unwrap().len();
    let implied = json!({ "planted": ["ringfort-types/planted"] });
    assert_eq!(count(&package("ringfort-sim", Some("dev"), &implied)), 0);
    assert_eq!(count(&package("ringfort-sim", None, &implied)), 1);
    assert_eq!(count(&package("ringfort-server", Some("dev"), &json!({}))), 1);
    assert_eq!(count(&package("ringfort-server", None, &implied)), 2);
    assert_eq!(count(&package("ringfort-sim", Some("dev"), &json!({ "default": ["planted"] }))), 1);
}

#[test]
fn a_script_that_no_test_names_is_found() {
    let root = TempDir::new().unwrap();
    plant(root.path(), "crates/node/tests/scripts/a_story.script", "");
    plant(root.path(), "crates/node/tests/scripts/a_story_too.script", "");
    plant(root.path(), "crates/node/tests/cluster/scripts.rs", "stories! {\n    a_story_too\n}\n");
    let findings = scripts::check(root.path()).unwrap();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].place, "crates/node/tests/scripts/a_story.script");
}

/// A `~` in the text is left out: it keeps tidy from finding here what is planted elsewhere.
fn plant(root: &Path, place: &str, text: &str) {
    let path = root.join(place);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text.replace('~', "")).unwrap();
}

fn findings_in(place: &str, text: &str) -> Vec<Finding> {
    let root = TempDir::new().unwrap();
    plant(root.path(), place, text);
    sources::check(root.path()).unwrap()
}

#[track_caller]
fn finds(place: &str, text: &str, expected: &str) {
    let findings = findings_in(place, text);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].to_string().contains(expected), "{}", findings[0]);
}

#[test]
fn planted_violations_are_found() {
    const FILE: &str = "crates/node/src/core.rs";
    finds(FILE, "fn main() {}\n", "core.rs:1: opens without `//!`");
    finds(FILE, &format!("//! Long.\n{}", "const A: u8 = 0;\n".repeat(600)), "core.rs:601: 601 lines");
    finds(FILE, "//! Stub.\nfn f() { to~do!() }\n", "core.rs:2: a stub");
    finds(FILE, "//! Stub.\nfn f() { unimple~mented!() }\n", "a stub");
    finds(FILE, "//! Trace.\nfn f() { db~g!(1); }\n", "left over");
    finds(FILE, "//! Skipped.\n#[ign~ore = \"slow\"]\nfn f() {}\n", "core.rs:2: a test that is not run");
    finds(FILE, "//! Sharp.\nfn f() { un~safe { g() } }\n", "nothing here may be");
    finds(FILE, "//! Disk.\nuse std::fs;\n", "std::fs");
    finds(FILE, "//! Disk.\nuse std::{fs, io};\n", "std::fs");
    finds(FILE, "//! Here.\nconst DIR: &str = \"/work/main\";\n", "a path of somebody's machine");
    finds("README.md", "Run it in /tmp/x.\n", "README.md:1: /tmp/");
    finds(".ci/run", "cd /work\n", ".ci/run:1: /work");
}

#[test]
fn what_is_allowed_is_not_found() {
    let none = |place, text: &str| assert_eq!(findings_in(place, text), [], "{place}");
    none("crates/storage/src/disk/file.rs", "//! Disk.\nuse std::fs;\n");
    none("crates/cli/src/main.rs", "//! Program.\nuse std::fs;\n");
    none("crates/node/tests/long.rs", &format!("//! Long.\n{}", "const A: u8 = 0;\n".repeat(900)));
    none(
        "crates/node/src/a.rs",
        "//! Tested.\n#[cfg(test)]\nmod tests {\n    use std::fs;\n    const A: &str = \"/tmp/a\";\n}\n",
    );
    none("crates/node/src/b.rs", "//! Words.\n// to~do!() is not un~safe in a comment, nor is std::fs.\n");
    none("crates/node/src/c.rs", "//! Elsewhere: docs/work, /workshop, ${HOME}/work/x.\n");
    none("target/debug/build/x.rs", "fn generated() { to~do!() }\n");
}

#[test]
fn pure_crates_share_their_bans() {
    let root = TempDir::new().unwrap();
    plant(root.path(), "clippy.toml", "doc-valid-idents = [\"ReadIndex\"]\n");
    let bans = "doc-valid-idents = [\"ReadIndex\"]\ndisallowed-types = []\n";
    for name in bans::PURE {
        plant(root.path(), &format!("crates/{name}/clippy.toml"), bans);
    }
    assert_eq!(bans::check(root.path()).unwrap(), []);

    plant(root.path(), "crates/shard/clippy.toml", "doc-valid-idents = [\"ReadIndex\"]\n");
    plant(root.path(), "crates/node/clippy.toml", "disallowed-types = []\n");
    fs::remove_file(root.path().join("crates/ring/clippy.toml")).unwrap();
    let findings: Vec<String> = bans::check(root.path()).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(findings.len(), 4, "{findings:?}");
    assert!(findings[0].starts_with("crates/ring/clippy.toml: is missing"));
    assert!(findings[1].starts_with("crates/shard/clippy.toml: differs"));
    assert!(findings[2].starts_with("crates/node/clippy.toml: lacks"));
}

#[test]
fn the_workspace_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let findings: Vec<String> = tidy::check(root).unwrap().iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn licences_sources_and_bans_are_those_of_deny_toml() {
    const DENY: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
        [bans]
        deny = [{ crate = "openssl-sys", reason = "TLS is rustls'" }]
        [sources]
        allow-registry = ["https://example.org/index"]
    "#;
    const REGISTRY: &str = "registry+https://example.org/index";
    let findings = |package: Value| {
        let findings = dependencies::judge(DENY, &json!({ "packages": [package] })).unwrap();
        findings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let licensed = |licence: &str| findings(json!({ "name": "a", "license": licence, "source": REGISTRY }));
    for allowed in [
        "MIT",
        "MIT/Unlicense",
        "GPL-3.0 OR MIT",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        "(MIT OR GPL-3.0) AND Apache-2.0",
        "GPL-3.0 AND ISC OR MIT",
    ] {
        assert_eq!(licensed(allowed), [""; 0], "{allowed}");
    }
    for refused in ["GPL-3.0", "MIT AND ISC", "(GPL-3.0 OR ISC) AND MIT", "MIT WITH LLVM-exception"] {
        let found = licensed(refused);
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("a: has the licence {refused}, ")),
            "{found:?}"
        );
    }
    for unreadable in ["", "MIT OR", "(MIT", "MIT MIT", "AND MIT"] {
        assert!(licensed(unreadable)[0].contains("can't be read"), "{unreadable}");
    }
    assert!(findings(json!({ "name": "a", "source": REGISTRY }))[0].contains("names no licence"));
    let from = |source: &str| findings(json!({ "name": "a", "license": "MIT", "source": source }));
    assert!(from("git+https://example.org/a")[0].contains("comes from git+"));
    assert!(
        from("registry+https://example.net/index")[0].contains("comes from registry+https://example.net")
    );
    let banned = findings(json!({ "name": "openssl-sys", "license": "MIT", "source": REGISTRY }));
    assert_eq!(banned, ["openssl-sys: is banned by deny.toml: TLS is rustls'"]);
    let any = json!([{ "name": "b", "req": "*" }, { "name": "c", "req": "*", "path": "../c" }]);
    let ours = findings(json!({ "name": "ours", "license": "MIT", "dependencies": any }));
    assert_eq!(ours, ["ours: takes any version of b: say which"]);
    assert!(dependencies::judge("[licenses]", &json!({ "packages": [] })).is_err());
}
