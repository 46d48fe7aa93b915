//! Clients that ask for several things at a time over one connection, and count on program order: what was asked for
//! first takes effect first (`ringfort_node::order`). A door that promises this does as is done here.
//!
//! Each has keys of its own, in two slots, so that some of what it asks for is held back and some is not. Now and then it
//! makes a new connection, to another node; what was under way on the last one may still take effect.

use bytes::Bytes;
use ringfort_node::order::ProgramOrder;
use ringfort_types::{Change, Outcome, Part, Reply, Request, Scan};

use crate::clients::Asker;
use crate::world::{Next, World};

/// Most calls that are made at once.
const BURST_MAX: u64 = 9;

/// One client.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// Where its connection goes to.
    host: usize,
    order: ProgramOrder,
    timeout_ms: u32,
    /// What it has asked for at once, by place: those that are held back have not been sent.
    burst: Vec<Request>,
    /// The judge's number of the first of them.
    first: u64,
}

impl World {
    /// A client asks for several things at once.
    pub(crate) fn act_in_pipe(&mut self, pipe: usize) {
        if self.is_calm {
            return;
        }
        let is_new = self.random.chance(30);
        let host = self.draw_host();
        let timeout_ms = self.random.pick(&[300, 1_000, 3_000]);
        let burst: Vec<Request> =
            (0..self.random.between(2, BURST_MAX)).map(|_| self.draw_piped(pipe)).collect();
        let first = self.judges.program_order.asked(&burst);
        let client = &mut self.pipes[pipe];
        if is_new {
            client.host = host;
        }
        (client.timeout_ms, client.first) = (timeout_ms, first);
        client.burst.clone_from(&burst);
        let may_go = (0..).zip(&burst).map(|(place, request)| client.order.may_go(place, request));
        let now: Vec<bool> = may_go.collect();
        for (place, _) in (0..).zip(now).filter(|(_, now)| *now) {
            self.send_in_pipe(pipe, place);
        }
    }

    fn send_in_pipe(&mut self, pipe: usize, place: u32) {
        let Pipe { host, timeout_ms, burst, .. } = &self.pipes[pipe];
        let (host, timeout_ms, request) = (*host, *timeout_ms, burst[place as usize].clone());
        self.ask(Asker::Pipe(pipe, place), host, request, timeout_ms);
    }

    /// A client hears of one of its calls, or has waited long enough.
    pub(crate) fn hear_in_pipe(&mut self, pipe: usize, place: u32, reply: Option<&Reply>, outcome: Outcome) {
        let broken =
            self.judges.program_order.told(self.pipes[pipe].first + u64::from(place), reply, outcome);
        self.find_all(broken);
        let mut go = Vec::new();
        let order = &mut self.pipes[pipe].order;
        order.done(place, &mut go);
        if order.unanswered() == 0 {
            let after_us = self.random.between(1_000, 100_000);
            self.schedule(after_us, Next::Pipe { pipe });
        }
        // To a node that is down, each of them may be over before the next one is sent.
        for place in go {
            self.send_in_pipe(pipe, place);
        }
    }

    fn draw_piped(&mut self, pipe: usize) -> Request {
        let luck = self.random.next();
        let keys: Vec<Bytes> = self.clients.keys.piped(pipe, luck).to_vec();
        let key = keys[self.random.below(keys.len() as u64) as usize].clone();
        match self.random.below(100) {
            0..40 => Request::put(key, self.draw_value(pipe)),
            40..48 => Request::delete(key),
            48..56 => {
                let parts = keys.into_iter().map(|key| Part::new(key, Change::put(self.draw_value(pipe))));
                Request::Write { parts: parts.collect() }
            }
            56..86 => Request::Get { key, consistency: self.draw_fresh() },
            86..96 => Request::GetMany { keys, consistency: self.draw_fresh() },
            _ => self.list_in_pipe(&key),
        }
    }

    /// A list of the keys in this key's slot, which are all of one shard.
    fn list_in_pipe(&mut self, key: &Bytes) -> Request {
        let Some(shard) = self.shard_of_key(key) else { return Request::delete(key.clone()) };
        let prefix = key.slice(..key.len() - 1);
        let from = Bytes::new();
        Request::Scan(Scan {
            shard,
            at: None,
            from,
            prefix,
            rows_max: 100,
            bytes_max: u32::MAX,
            keys_only: false,
        })
    }
}
