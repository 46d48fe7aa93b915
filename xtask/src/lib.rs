//! The checks behind `cargo xtask`, as a library so that tests can plant what they must find.

pub mod docker;
pub mod instructions;
pub mod tidy;
pub mod upgrade;
