//! The shipped binary, from outside: every test here runs `ringfort` itself.

mod book;
mod cluster;
mod copies;
mod counter;
mod disks;
mod doors;
mod files;
mod grpc_port;
mod health;
mod hung;
mod json;
mod lists;
mod machine;
mod memory;
mod node;
mod reads;
mod rolling;
mod settings;
mod support;
mod survival;
mod text;
mod tools;
mod trio;
mod usage;
mod writes;
