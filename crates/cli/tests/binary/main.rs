//! The shipped binary, from outside: every test here runs `ringfort` itself.

mod book;
mod cluster;
mod files;
mod json;
mod settings;
mod support;
mod survival;
mod tools;
mod usage;
mod writes;
