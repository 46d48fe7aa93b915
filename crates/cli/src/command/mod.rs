//! One file a command: its flags, and what it does. `args` knows them all; they do not know each other.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod delete;
pub(crate) mod dev;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod health;
pub(crate) mod import;
pub(crate) mod incr;
pub(crate) mod list;
pub(crate) mod locate;
pub(crate) mod log_level;
pub(crate) mod man;
pub(crate) mod put;
pub(crate) mod rebuild;
pub(crate) mod recover;
pub(crate) mod safe_to_stop;
pub(crate) mod shell;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod user;
pub(crate) mod version;
pub(crate) mod write;
