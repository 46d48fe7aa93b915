//! The images that the Dockerfile and the compose file build on, where nobody has pulled them: made from Debian's packages
//! and this machine's own Rust, under the official tags, with the official ones' conventions as far as our files rest on
//! them. So what is tried is the Dockerfile itself.
//!
//! An image that is there, pulled or made, is taken as it is. Those that are made have the label [`STAND_IN`];
//! `docker image ls --filter label=org.ringfort.stand-in` lists them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::engine::{self, SLOW, limited, ok};
use super::step;

const STAND_IN: &str = "org.ringfort.stand-in";
/// Debian's release in the tags.
const RELEASE: &str = "trixie";
const DEBIAN: &str = "debian:trixie-slim";
const HAPROXY: &str = "haproxy:3.0";
const PROMETHEUS: &str = "prom/prometheus:v2.53.4";
/// What Debian's own slim images leave out, and what only downloading needed.
const LEFT_OUT: [&str; 6] = [
    "./dev/*",
    "./var/cache/apt/archives/*.deb",
    "./var/lib/apt/lists/*",
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./usr/share/locale/*",
];
/// Certificates of those whom this machine trusts: a network may have some of its own.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// Makes those that are not there.
pub(super) fn make_missing(root: &Path) -> Result<()> {
    let rust = rust_tag(root)?;
    for (tag, make) in [
        (DEBIAN, debian as fn(&Path, &str) -> Result<()>),
        (&rust, self::rust),
        (HAPROXY, haproxy),
        (PROMETHEUS, prometheus),
    ] {
        if engine::docker(&["image", "inspect", tag]).is_ok() {
            continue;
        }
        let folder = Folder::new(root, &tag.replace([':', '/'], "-"))?;
        step(&format!("{tag} is not there; making one like it"), || make(&folder.0, tag))?;
    }
    Ok(())
}

/// The tag that the Dockerfile builds in, which has to be of the toolchain that everything else is built with.
fn rust_tag(root: &Path) -> Result<String> {
    let read = |name: &str| fs::read_to_string(root.join(name)).with_context(|| format!("can't read {name}"));
    let (toolchain, dockerfile) = (read("rust-toolchain.toml")?, read("Dockerfile")?);
    let version = toolchain.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
    let tag = format!("rust:{}-slim-{RELEASE}", version.context("rust-toolchain.toml names no channel")?);
    for line in [format!("FROM {tag} AS build"), format!("FROM {DEBIAN}")] {
        if !dockerfile.lines().any(|known| known == line) {
            bail!("the Dockerfile lacks `{line}`, which follows from rust-toolchain.toml and this task");
        }
    }
    Ok(tag)
}

fn debian(folder: &Path, tag: &str) -> Result<()> {
    let made = ok(limited("debootstrap", SLOW)
        .args(["--variant=minbase", "--include=ca-certificates", RELEASE])
        .arg(folder));
    made.context(
        "debootstrap (as root, `apt-get install debootstrap`) could not make a Debian; or pull the image",
    )?;
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder).args(LEFT_OUT.map(|path| format!("--exclude={path}"))).args(["-c", "."]);
    let mut tar = tar.stdout(Stdio::piped()).spawn().context("can't run tar")?;
    let archive = tar.stdout.take().expect("piped");
    let mut import = limited("docker", SLOW);
    import.args([
        "import",
        "--change",
        &format!("LABEL {STAND_IN}=debian"),
        "--change",
        "CMD [\"bash\"]",
        "-",
        tag,
    ]);
    let imported = import.stdin(archive).stdout(Stdio::null()).status().context("can't run docker")?;
    if !(tar.wait()?.success() && imported.success()) {
        bail!("{tag} could not be imported");
    }
    Ok(())
}

/// The compiler that runs here, with a linker of Debian's.
fn rust(folder: &Path, tag: &str) -> Result<()> {
    let sysroot = ok(Command::new("rustc").args(["--print", "sysroot"]))?;
    let sysroot = PathBuf::from(sysroot.trim());
    // Without the books of the standard library, which are larger than all else.
    for part in ["bin/cargo", "bin/rustc", "lib"] {
        let target = folder.join("toolchain").join(part);
        fs::create_dir_all(target.parent().expect("it has one"))?;
        ok(Command::new("cp").arg("-a").arg(sysroot.join(part)).arg(&target))?;
    }
    fs::copy(Path::new("/").join(CERTIFICATES), folder.join("ca-certificates.crt"))
        .context("this machine has no certificates")?;
    image(
        folder,
        tag,
        &format!(
            "RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
             && rm -rf /var/lib/apt/lists/*\n\
             COPY toolchain /usr/local/toolchain\n\
             COPY ca-certificates.crt /{CERTIFICATES}\n\
             ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/toolchain/bin:$PATH\n"
        ),
    )
}

/// Debian's `HAProxy` of the same series, with the user, the place of the file and the signal of the official image.
fn haproxy(folder: &Path, tag: &str) -> Result<()> {
    image(
        folder,
        tag,
        "RUN apt-get update && apt-get install --yes --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/* \
         && usermod --uid 99 haproxy && mkdir -p /usr/local/etc/haproxy && chown haproxy /var/lib/haproxy\n\
         STOPSIGNAL SIGUSR1\n\
         USER haproxy\n\
         WORKDIR /var/lib/haproxy\n\
         ENTRYPOINT [\"haproxy\", \"-W\", \"-db\"]\n\
         CMD [\"-f\", \"/usr/local/etc/haproxy/haproxy.cfg\"]\n",
    )
}

/// Debian's Prometheus of the same series, with the user and the places of the official image.
fn prometheus(folder: &Path, tag: &str) -> Result<()> {
    image(
        folder,
        tag,
        "RUN apt-get update && apt-get install --yes --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/* \
         && mkdir -p /prometheus && chown nobody /prometheus\n\
         USER nobody\n\
         WORKDIR /prometheus\n\
         ENTRYPOINT [\"prometheus\"]\n\
         CMD [\"--config.file=/etc/prometheus/prometheus.yml\", \"--storage.tsdb.path=/prometheus\"]\n",
    )
}

/// An image on top of [`DEBIAN`].
fn image(folder: &Path, tag: &str, steps: &str) -> Result<()> {
    let dockerfile = folder.join("Dockerfile");
    fs::write(
        &dockerfile,
        format!("FROM {DEBIAN}\nLABEL {STAND_IN}={}\n{steps}", tag.split(':').next().unwrap_or(tag)),
    )?;
    engine::build(tag, &dockerfile, folder)
}

/// A folder under `target`, gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(root: &Path, name: &str) -> Result<Folder> {
        let path = root.join("target").join("docker").join(name);
        let _absent = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).with_context(|| format!("can't make {}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.0);
    }
}
