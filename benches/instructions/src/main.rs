//! A load on three nodes that needs neither clock nor disk nor network, so that its instructions can be counted: what
//! `cargo xtask instructions` runs under callgrind.
//!
//! `ringfort-instructions put|get OPERATIONS`: so many calls, 64 in flight, each at the node that leads its shard. The first of the nodes is
//! the one to count. It leads a third of the shards and follows in the others, so a third of the calls is asked of it, and it has a part in
//! all puts. Two runs do the same, instruction by instruction.

mod counted;
mod load;
mod machines;
mod turn;

use std::process::ExitCode;

use load::{Load, Workload};
use machines::Machines;

const USAGE: &str = "usage: ringfort-instructions put|get OPERATIONS";
const IN_FLIGHT: u64 = 64;
/// So many begin in one step, until all are in flight: else all would go through each stage at once.
const BEGIN_IN_STEP: u64 = 10;
/// Steps without an answer after which something is wrong.
const STEPS_IDLE_MAX: u32 = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["put", count] => count.parse().ok().map(|count| (Workload::Put, count)),
        ["get", count] => count.parse().ok().map(|count| (Workload::Get, count)),
        _ => None,
    };
    let Some((workload, count)) = asked else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut machines = Machines::born();
    machines.count();
    run(&mut machines, workload, count);
    println!("{count} calls are answered");
    ExitCode::SUCCESS
}

fn run(machines: &mut Machines, workload: Workload, count: u64) {
    let mut load = Load::new(workload);
    let (mut asked, mut answered, mut idle) = (0, 0, 0);
    while answered < count {
        let room = IN_FLIGHT - (asked - answered);
        let calls = (0..room.min(BEGIN_IN_STEP).min(count - asked)).map(|_| {
            let key = load.key();
            let shard = machines.shard_of(&key);
            (shard, load.call(key, shard))
        });
        let calls: Vec<_> = calls.collect();
        asked += calls.len() as u64;
        machines.ask(calls);
        machines.step();
        let done = machines.take_answered();
        answered += done;
        idle = if done == 0 { idle + 1 } else { 0 };
        assert!(idle < STEPS_IDLE_MAX, "{answered} of {asked} calls are answered, and no more come");
    }
    assert_eq!(asked, answered, "each call is answered once");
}
