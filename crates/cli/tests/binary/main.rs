//! The shipped binary, from outside: every test here runs `ringfort` itself.

mod cluster;
mod support;
mod survival;
mod usage;
