//! Import from files and export to them: compressed or not, tab-separated or JSON lines.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::support::{Dev, eventually, refusal, run, stderr};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::fast());
    writer.write_all(bytes).expect("to memory");
    writer.finish().expect("to memory")
}

fn gunzip(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    MultiGzDecoder::new(fs::File::open(path).expect("there")).read_to_end(&mut bytes).expect("whole");
    bytes
}

/// Rows in key order as `export` writes them, some of them not UTF-8.
fn rows(count: u32) -> Vec<u8> {
    let row = |n: u32| {
        let mut row = format!("row-{n:05}\tvalue {n} \\t\\n\\r\\\\ \"é\" ").into_bytes();
        if n.is_multiple_of(7) {
            row.push(0xff);
        }
        row.push(b'\n');
        row
    };
    (0..count).flat_map(row).collect()
}

/// These lines of JSON, cut before the last field.
fn without_revisions(lines: &[u8]) -> Vec<&[u8]> {
    let cut =
        |line: &'_ [u8]| line.windows(12).rposition(|part| part == b",\"revision\":").expect("in each row");
    lines.trim_ascii_end().split(|byte| *byte == b'\n').map(|line| &line[..cut(line)]).collect()
}

/// An import's or export's refusal, with the exit code for what can't be read.
fn refused(dev: &Dev, arguments: &[&str], input: &[u8]) -> String {
    let (code, line) = refusal(&run(&mut dev.command(arguments), input));
    assert_eq!(code, Some(2), "{line}");
    line
}

#[test]
fn rows_go_through_files_of_every_kind_and_come_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let dev = Dev::start(&directory.path().join("data"));
    let path = |name: &str| directory.path().join(name).to_str().expect("a plain path").to_owned();
    let text = rows(3000);
    // Of two members, as `cat` of two files makes them.
    let (front, back) = text.split_at(text.iter().position(|byte| *byte == b'\n').expect("rows") + 1);
    fs::write(path("in.tsv.gz"), [gzip(front), gzip(back)].concat()).expect("written");
    assert!(dev.ok(&["import", &path("in.tsv.gz")], b"").starts_with("imported 3000 rows, "));
    let exported = run(&mut dev.command(&["export", "-"]), b"");
    assert!(exported.stdout == text, "what was compressed is there");

    fs::create_dir(path("out")).expect("made");
    for name in ["out/a.tsv", "out/b.tsv.gz", "out/c.jsonl", "out/d.jsonl.gz", "out/e.gz"] {
        assert!(
            dev.ok(&["export", "--file", &path(name)], b"").starts_with("exported 3000 rows, "),
            "{name}"
        );
    }
    assert_eq!(fs::read_dir(path("out")).expect("there").count(), 5, "no unfinished file is left");
    assert!(fs::read(path("out/a.tsv")).expect("written") == text);
    assert!(gunzip(Path::new(&path("out/b.tsv.gz"))) == text);
    assert!(gunzip(Path::new(&path("out/e.gz"))) == text);
    let lines = fs::read_to_string(path("out/c.jsonl")).expect("JSON is text");
    assert!(gunzip(Path::new(&path("out/d.jsonl.gz"))) == lines.as_bytes());
    assert!(
        lines.lines().nth(1).expect("rows").starts_with("{\"key\":\"row-00001\",\"value\":\"value 1 \\t\\n")
    );
    assert!(lines.starts_with("{\"key\":\"row-00000\",\"value_base64\":\""), "{lines:.80}");

    // Elsewhere: the same rows under other keys, then back under their own by each format.
    for name in ["out/d.jsonl.gz", "out/c.jsonl"] {
        for key in ["row-00000", "row-01234", "row-02999"] {
            dev.ok(&["delete", key], b"");
        }
        assert!(
            dev.ok(&["import", "--file", &path(name)], b"").starts_with("imported 3000 rows, "),
            "{name}"
        );
        assert!(run(&mut dev.command(&["export", "-"]), b"").stdout == text, "{name}");
    }
    let asked = run(&mut dev.command(&["export", "-", "--format", "jsonl"]), b"");
    // What came back has revisions of its own.
    let revisions = |lines: &[u8]| -> Vec<u64> {
        let rows = lines.split_inclusive(|byte| *byte == b'\n');
        let row = |row| serde_json::from_slice::<serde_json::Value>(row).expect("an object a line");
        rows.map(|line| row(line)["revision"].as_u64().expect("a number")).collect()
    };
    let (before, after) = (revisions(lines.as_bytes()), revisions(&asked.stdout));
    assert_eq!((before.len(), after.len()), (3000, 3000));
    assert!(before.iter().zip(&after).all(|(before, after)| before < after), "written again");
    assert!(without_revisions(&asked.stdout) == without_revisions(lines.as_bytes()));
    assert!(
        dev.ok(&["import", "-", "--format", "jsonl", "--skip", "2998"], lines.as_bytes())
            .contains(" 2 rows, ")
    );

    let line = refused(
        &dev,
        &["import", "-", "--format", "jsonl"],
        b"{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b\"}\n",
    );
    assert!(line.contains("line 2: no `value`") && line.contains("acknowledged 1 row, "), "{line}");
    assert!(line.ends_with("nothing sent from line 2 on; go on with --skip 1"), "{line}");
    let line = refused(&dev, &["import", "-"], b"{\"key\":\"a\",\"value\":\"1\"}\n");
    assert!(line.contains("line 1: no tab") && line.contains("--format jsonl"), "{line}");
    let line = refused(&dev, &["import", "-"], &gzip(&text));
    assert!(line.contains("line 1: ") && line.contains("zcat"), "{line}");

    for (mark, bytes_of) in [
        ([0xff, 0xfe], u16::to_le_bytes as fn(u16) -> [u8; 2]),
        ([0xfe, 0xff], u16::to_be_bytes as fn(u16) -> [u8; 2]),
    ] {
        let text: Vec<u8> = "a\t1\nb\t2\n".encode_utf16().flat_map(bytes_of).collect();
        let line = refused(&dev, &["import", "-"], &[&mark, &text[..]].concat());
        assert!(line.contains("line 1: this is UTF-16") && line.contains("iconv -f UTF-16"), "{line}");
        // A key of these bytes is none.
        let output = run(&mut dev.command(&["import", "-"]), &[&mark, &b"x\tkept\n"[..]].concat());
        assert!(output.status.success(), "{output:?}");
    }
    let line = refused(
        &dev,
        &["import", "--format", "jsonl", "-"],
        b"\xef\xbb\xbf{\"key\":\"a\",\"value\":\"1\"}\n",
    );
    assert!(line.contains("begins with a byte-order mark"), "{line}");

    let whole = fs::read(path("out/b.tsv.gz")).expect("written");
    fs::write(path("cut.tsv.gz"), &whole[..whole.len() / 2]).expect("written");
    let line = refused(&dev, &["import", &path("cut.tsv.gz")], b"");
    assert!(
        line.contains("can't read the input from line ") && line.contains("go on with --skip "),
        "{line}"
    );
    let mut bent = whole.clone();
    let at = bent.len() - 6;
    bent[at] ^= 1;
    fs::write(path("bent.tsv.gz"), &bent).expect("written");
    assert!(refused(&dev, &["import", &path("bent.tsv.gz")], b"").contains("checksum"));

    assert!(
        refused(&dev, &["import", &path("out/a.tsv"), "--file", &path("out/a.tsv")], b"").contains("--file")
    );
    assert!(refused(&dev, &["export"], b"").contains("--file"));
    assert_eq!(dev.leave(), Some(0));
}

#[test]
fn an_export_that_is_asked_to_end_does_so_and_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let dev = Dev::start(&directory.path().join("data"));
    // Noise, in base64 digits: packing it takes longer than getting it.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[(state >> 58) as usize]
    };
    let mut text = Vec::new();
    for row in 0..120 {
        text.extend_from_slice(format!("row-{row:03}\t").as_bytes());
        text.extend((0..256 * 1024).map(|_| noise()));
        text.push(b'\n');
    }
    dev.ok(&["import", "-"], &text);
    let out = directory.path().join("out");
    fs::create_dir(&out).expect("made");
    let files = || fs::read_dir(&out).expect("there").count();
    // At once, when it may not even be connected; and when it is in the middle of packing.
    for later in [Duration::ZERO, Duration::from_millis(150)] {
        let mut export = dev.command(&["export", "--file"]);
        export
            .arg(out.join("rows.tsv.gz"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = export.spawn().expect("starts");
        eventually("it has begun", || files() == 1);
        std::thread::sleep(later);
        let killed =
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
        assert!(killed.success());
        let output = child.wait_with_output().expect("ends");
        assert_eq!((output.status.code(), files()), (Some(3), 0), "{later:?}: {}", stderr(&output));
    }
    assert_eq!(dev.leave(), Some(0));
}

#[test]
fn line_ends_of_other_systems_are_kept_and_said_or_stripped_if_told_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let dev = Dev::start(directory.path());
    let text = b"\xef\xbb\xbfa\t1\r\nb\t2\r\n";
    let kept = run(&mut dev.command(&["import", "-"]), text);
    assert!(kept.status.success());
    let said = stderr(&kept);
    assert!(said.contains("begins with a byte-order mark") && said.contains("--crlf strip"), "{said}");
    assert_eq!(said.matches("carriage return").count(), 1, "once: {said}");
    assert_eq!(dev.ok(&["get", "--raw", "b"], b""), "2\r");
    let stripped = run(&mut dev.command(&["import", "--crlf", "strip", "-"]), text);
    assert!(stripped.status.success() && !stderr(&stripped).contains("carriage"), "{}", stderr(&stripped));
    assert_eq!(dev.ok(&["get", "--raw", "b"], b""), "2");
    let meant = run(&mut dev.command(&["import", "--crlf", "keep", "-"]), text);
    assert!(meant.status.success() && !stderr(&meant).contains("carriage"), "{}", stderr(&meant));
    assert_eq!(dev.ok(&["get", "--raw", "b"], b""), "2\r");
}
