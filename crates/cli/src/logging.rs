//! What a node that runs logs: which lines, how they look, and what changes that while it runs.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ringfort_server::LogLevels;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::sink::Sink;
use crate::{authority, duration};

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Time, level, and what happened
    #[default]
    Text,
    /// A JSON object: timestamp, level, message, target (the module)
    Json,
}

/// The flags of `start` that are about its log.
#[derive(Args, Debug)]
pub(crate) struct Logging {
    /// What to log on stderr: error, warn, info, debug or trace, and all that is more severe; or levels for single modules, as
    /// `warn,ringfort_server::links=debug`. `ringfort log-level` changes it while the node runs
    #[arg(long, value_name = "FILTER", default_value = "warn", value_parser = check)]
    log_level: String,
    /// How each line of the log looks
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: Format,
    /// Log requests that take longer than this, at most a line in ten seconds; `off` for none
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = beyond)]
    slow_request: Beyond,
}

/// After which time a request is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beyond(Option<Duration>);

fn beyond(text: &str) -> Result<Beyond, String> {
    if text == "off" {
        return Ok(Beyond(None));
    }
    duration::parse(text).map(|time| Beyond(Some(time))).map_err(|why| format!("{why}; or `off`"))
}

/// A filter, if it is one. `tracing` takes any word for the name of a module, so a mistyped level would let everything through.
pub(crate) fn check(text: &str) -> Result<String, String> {
    let is_level = |level: &str| LEVELS.contains(&level);
    let is_module = |module: &str| {
        !module.is_empty() && module.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
    };
    let is_part = |part: &str| match part.split_once('=') {
        Some((module, level)) => is_module(module) && is_level(level),
        None => is_level(part),
    };
    if let Some(part) = text.split(',').find(|part| !is_part(part)) {
        return Err(format!("`{part}` is no level: write one of {}, or MODULE=LEVEL", LEVELS.join(", ")));
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

impl Logging {
    /// After which time a request is told of.
    pub(crate) fn slow_request(&self) -> Option<Duration> {
        self.slow_request.0
    }

    /// Begins to log there, for the whole process. What changes it while that runs.
    pub(crate) fn begin(&self, errors: Sink) -> LogLevels {
        let (filter, handle) = reload::Layer::new(EnvFilter::new(&self.log_level));
        let registry = tracing_subscriber::registry();
        match self.log_format {
            Format::Text => {
                let lines = tracing_subscriber::fmt::layer()
                    .with_writer(errors)
                    .with_ansi(std::io::stderr().is_terminal())
                    // Where in the code it comes from is for those who look into that.
                    .with_target(names_modules(&self.log_level))
                    .with_filter(filter);
                registry.with(lines).with(authority::listener()).init();
            }
            Format::Json => {
                let lines = tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false)
                    .with_writer(errors)
                    .with_filter(filter);
                registry.with(lines).with(authority::listener()).init();
            }
        }
        levels(self.log_level.clone(), handle)
    }
}

/// Whether lines say where in the code they come from.
fn names_modules(filter: &str) -> bool {
    ["debug", "trace"].iter().any(|level| filter.contains(level))
}

fn levels(first: String, handle: reload::Handle<EnvFilter, Registry>) -> LogLevels {
    let now = Mutex::new(first);
    LogLevels::new(move |filter| {
        let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
        if filter.is_empty() {
            return Ok(now.clone());
        }
        let new = check(filter)?;
        handle.reload(EnvFilter::new(&new)).map_err(|error| error.to_string())?;
        Ok(std::mem::replace(&mut now, new))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_levels_of_all_and_of_modules() {
        for right in ["warn", "off", "warn,ringfort_server::links=debug", "ringfort_node=trace"] {
            assert_eq!(check(right), Ok(right.to_owned()));
        }
        for wrong in ["", "wran", "warn,", "warn,links", "links=loud", "=warn", "a b=warn", "WARN"] {
            assert!(check(wrong).is_err_and(|why| why.contains("write one of error, warn")), "{wrong}");
        }
    }

    #[test]
    fn a_slow_request_is_one_beyond_a_time_or_none_is() {
        assert_eq!(beyond("250ms"), Ok(Beyond(Some(Duration::from_millis(250)))));
        assert_eq!(beyond("off"), Ok(Beyond(None)));
        assert!(beyond("soon").is_err_and(|why| why.contains("`off`")));
    }
}
