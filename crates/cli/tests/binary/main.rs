//! The shipped binary, from outside: every test here runs `ringfort` itself.

mod book;
mod cluster;
mod copies;
mod counter;
mod files;
mod health;
mod json;
mod reads;
mod settings;
mod support;
mod survival;
mod tools;
mod trio;
mod usage;
mod writes;
