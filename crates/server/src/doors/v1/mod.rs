//! `ringfort.v1`: single calls (`unary`), sessions of pipelined requests (`session`), and lists (`list`).

mod list;
mod session;
mod unary;

pub(crate) use unary::Service;
