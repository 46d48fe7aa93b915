//! What the system says of this process, under the names that all Prometheus clients have for it. Nothing where it does not say.

use std::fmt;
use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::page::Page;

/// From `/proc/self` (proc(5)).
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    cpu_seconds: f64,
    threads: f64,
    /// Since the system was started.
    started_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
    descriptors: f64,
    descriptors_max: f64,
    /// When the system was started, by its clock.
    booted_seconds: f64,
}

impl Process {
    /// As of now.
    pub(super) fn look() -> Option<Process> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let booted = fs::read_to_string("/proc/stat").ok()?;
        let booted = booted.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok())?;
        Some(Process {
            descriptors: fs::read_dir("/proc/self/fd").map(|all| all.count() as f64).ok()?,
            descriptors_max: getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |max| max as f64),
            booted_seconds: booted,
            ..Process::parse(&stat, clock_ticks_per_second() as f64, page_size() as f64)?
        })
    }

    /// Fields are counted from what follows the name, which is in parentheses and may hold any character.
    fn parse(stat: &str, ticks: f64, page: f64) -> Option<Process> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // The state is the third field of the file, and the first here.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Process {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            threads: field(20)?,
            started_seconds: field(22)? / ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page,
            ..Process::default()
        })
    }

    pub(super) fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        page.counter(
            "process_cpu_seconds",
            "Processor time that the process has used, by itself and by the system for it.",
            self.cpu_seconds,
        )?;
        page.gauge("process_resident_memory_bytes", "Memory in use.", self.resident_bytes)?;
        page.gauge("process_virtual_memory_bytes", "Address space.", self.virtual_bytes)?;
        page.gauge("process_threads", "Threads.", self.threads)?;
        page.gauge("process_open_fds", "Open files and sockets.", self.descriptors)?;
        page.gauge("process_max_fds", "As many files and sockets may be open.", self.descriptors_max)?;
        page.gauge(
            "process_start_time_seconds",
            "When the process was started, in seconds since 1970.",
            self.booted_seconds + self.started_seconds,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_any_name_is_read() {
        let stat =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 4 0 1000 8192 3 18446744073709551615";
        let process = Process::parse(stat, 100.0, 4096.0).unwrap();
        let wanted = Process {
            cpu_seconds: 2.0,
            threads: 4.0,
            started_seconds: 10.0,
            virtual_bytes: 8192.0,
            resident_bytes: 12288.0,
            ..Process::default()
        };
        assert_eq!(process, wanted);
        assert_eq!(Process::parse("7 (a) S 1", 100.0, 4096.0), None);
    }
}
