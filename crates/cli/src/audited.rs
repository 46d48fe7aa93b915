//! The flags of `start` that are about its audit log.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ringfort_server::{AuditConfig, AuditedRequests};

use crate::stop::Stop;

/// Requests that have lines besides administration and refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Requests {
    /// None
    None,
    /// Those that change keys
    Writes,
    /// Those that read keys, too
    All,
}

/// What is audited, and where.
#[derive(Args, Debug)]
pub(crate) struct Audited {
    /// Write who asked for what, from where, and what came of it, to this file, a JSON object a line: administration, and what is
    /// refused for lack of rights or wrong credentials
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Which requests are written there, too [default: none]
    #[arg(long, value_name = "WHICH", value_enum)]
    audit_requests: Option<Requests>,
    /// Refuse what must be written there while it can't be (a full disk), instead of dropping lines
    #[arg(long)]
    audit_required: bool,
}

impl Audited {
    /// The audit log, if one is wanted. An empty path is how scripts say that there is none.
    pub(crate) fn config(self) -> Result<Option<AuditConfig>, Stop> {
        let Some(file) = self.audit.filter(|file| !file.as_os_str().is_empty()) else {
            let useless = if self.audit_required {
                "--audit-required"
            } else if self.audit_requests.is_some_and(|requests| requests != Requests::None) {
                "--audit-requests"
            } else {
                return Ok(None);
            };
            return Err(Stop::usage(format!("{useless}: say where the audit log is, with --audit FILE")));
        };
        let requests = match self.audit_requests {
            None | Some(Requests::None) => AuditedRequests::None,
            Some(Requests::Writes) => AuditedRequests::Writes,
            Some(Requests::All) => AuditedRequests::All,
        };
        Ok(Some(AuditConfig { file, requests, required: self.audit_required }))
    }
}
