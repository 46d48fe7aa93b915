//! How it is told: two lines for people, or one object.

use std::io::Write;

use serde_json::json;

use super::flags::{Bench, name};
use super::tally::Measured;
use crate::stop::Stop;
use crate::{out, show};

/// Prints it; fails if nothing was answered.
pub(super) fn report(bench: &Bench, measured: &Measured) -> Result<(), Stop> {
    let rate = measured.done as f64 / measured.time.as_secs_f64();
    let at = |quantile: f64| measured.latency.value_at_quantile(quantile);
    let max = measured.latency.max();
    let unusual = unusual(bench);
    let text = if bench.output.json {
        let mut object = json!({
            "workload": name(&bench.workload),
            "transport": name(&bench.transport),
            "clients": bench.clients,
            "in_flight": bench.in_flight,
            "keys": bench.keys,
            "value_size": bench.value_size,
            "seconds": measured.time.as_secs_f64(),
            "ops": measured.done,
            "errors": measured.errors,
            "ops_per_sec": rate.round(),
            "latency_us": { "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": max },
        });
        if bench.workload.reads() {
            object["missing"] = measured.missing.into();
        }
        for Unusual { field, value, .. } in unusual {
            object[field] = value;
        }
        object.to_string()
    } else {
        let latency = |us: u64| format!("{:.2} ms", us as f64 / 1000.0);
        let unusual = unusual.into_iter().fold(String::new(), |all, one| all + ", " + &one.words);
        format!(
            "{} over {}{unusual}: {}, {} in flight, {}, values of {} B, {:.1} s\n\
             {} ops/s   p50 {}   p99 {}   p99.9 {}   max {}   errors {}",
            name(&bench.workload),
            name(&bench.transport),
            show::count(bench.clients.into(), "client", "clients"),
            bench.in_flight,
            show::grouped_count(bench.keys, "key", "keys"),
            bench.value_size,
            measured.time.as_secs_f64(),
            show::grouped(rate as u64),
            latency(at(0.5)),
            latency(at(0.99)),
            latency(at(0.999)),
            latency(max),
            measured.errors
        )
    };
    out::line(text)?;
    if measured.missing > 0 && !bench.output.json {
        let _ = writeln!(
            std::io::stderr(),
            "ringfort: {} of {} found no row: leave --skip-load out to have all keys loaded first",
            show::grouped(measured.missing),
            show::grouped_count(measured.done, "answered request", "answered requests"),
        );
    }
    match &measured.failure {
        Some(failure) if measured.done == 0 => Err(failure.clone().into()),
        Some(failure) => {
            let _ = writeln!(std::io::stderr(), "ringfort: the first error was: {failure}");
            Ok(())
        }
        None => Ok(()),
    }
}

/// A choice that is not the default: its name and value in JSON, and how people say it.
#[derive(Debug)]
struct Unusual {
    field: &'static str,
    value: serde_json::Value,
    words: String,
}

/// What the numbers may owe to choices that matter to this workload.
fn unusual(bench: &Bench) -> Vec<Unusual> {
    let mut all = Vec::new();
    if bench.workload.reads() {
        if let Some(kind) = bench.reading.unusual_kind() {
            all.push(Unusual { field: "consistency", value: kind.into(), words: format!("{kind} reads") });
        }
        if let Some(source) = bench.reading.unusual_source() {
            let words = format!("reads from {source}");
            all.push(Unusual { field: "reads_from", value: source.into(), words });
        }
    }
    if bench.workload.writes() && bench.at_most_once {
        let words = "writes at most once".to_owned();
        all.push(Unusual { field: "at_most_once", value: true.into(), words });
    }
    all
}
