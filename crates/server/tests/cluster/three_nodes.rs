//! Three nodes: routing, failover, return, refusal.

use std::time::{Duration, Instant};

use crate::nodes::{Nodes, get, list, put, replicas_agree, rows};
use ringfort_proto::status;
use ringfort_server::start;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_answers_and_names_the_leader() {
    let nodes = Nodes::serving(3, 8).await;
    let mut hints = 0;
    for n in 0..60 {
        let mut kv = nodes.kv(n % 3).await;
        let answer = kv.put(put(format!("key{n:02}"), "value")).await.unwrap();
        hints += usize::from(status::leader(answer.metadata()).is_some());
        assert!(answer.into_inner().receipt.unwrap().copies >= 2);
        let mut kv = nodes.kv((n + 1) % 3).await;
        assert!(kv.get(get(format!("key{n:02}"))).await.unwrap().into_inner().found);
    }
    assert!(hints > 10, "only {hints} of 60 puts had to be passed on");
    for at in 0..3 {
        let all = rows(&mut nodes.kv(at).await, list("key")).await;
        assert_eq!(all.len(), 60);
        assert!(all.is_sorted());
    }
    replicas_agree(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_may_go_and_come_back() {
    let mut nodes = Nodes::serving(3, 8).await;
    let mut kv = nodes.kv(1).await;
    for n in 0..100 {
        kv.put(put(format!("before{n}"), "value")).await.unwrap();
    }
    nodes.drop(0);
    let gone = Instant::now();
    for n in 0..100 {
        let until = Instant::now() + Duration::from_secs(10);
        while let Err(status) = kv.put(put(format!("during{n}"), "value")).await {
            assert!(Instant::now() < until, "{status:?}");
        }
    }
    assert!(gone.elapsed() < Duration::from_secs(10));
    assert_eq!(rows(&mut kv, list("")).await.len(), 200);

    nodes.start(0).await;
    nodes.all_serving().await;
    let mut back = nodes.kv(0).await;
    assert_eq!(rows(&mut back, list("")).await.len(), 200);
    replicas_agree(&nodes).await;

    for at in 0..3 {
        nodes.drop(at);
    }
    for at in 0..3 {
        nodes.start(at).await;
    }
    nodes.all_serving().await;
    assert_eq!(rows(&mut nodes.kv(2).await, list("")).await.len(), 200);
    replicas_agree(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_promised() {
    let mut nodes = Nodes::serving(3, 4).await;
    let mut kv = nodes.kv(2).await;
    kv.put(put("key", "old")).await.unwrap();
    nodes.drop(0);
    nodes.drop(1);
    let started = Instant::now();
    let mut asked = tonic::Request::new(get("key"));
    asked.set_timeout(Duration::from_secs(1));
    let status = kv.get(asked).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(status.metadata().contains_key("ringfort-outcome"), "{status:?}");
    nodes.start(0).await;
    let until = Instant::now() + Duration::from_secs(10);
    while kv.get(get("key")).await.is_err() {
        assert!(Instant::now() < until);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_directory_is_refused_and_the_others_serve_on() {
    let mut nodes = Nodes::serving(3, 4).await;
    nodes.wipe(2);
    let mut wiped = start(nodes.configs[2].clone()).await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(5), wiped.serving()).await.unwrap().unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let mut kv = nodes.kv(0).await;
    let until = Instant::now() + Duration::from_secs(5);
    while kv.put(put("key", "value")).await.is_err() {
        assert!(Instant::now() < until);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_differ_are_refused() {
    let mut nodes = Nodes::new(3, 4);
    nodes.configs[1].shards = Some(8);
    for at in 0..3 {
        nodes.start(at).await;
    }
    let serving = nodes.running[1].as_mut().unwrap().serving();
    let error = tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("shards"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_waits_for_its_peers_refuses_and_can_be_stopped() {
    let mut nodes = Nodes::new(3, 4);
    nodes.start(0).await;
    let waiting = nodes.running[0].take().unwrap();
    let status = nodes.kv(0).await.put(put("key", "value")).await.unwrap_err();
    assert_eq!(status.metadata().get(status::OUTCOME).unwrap(), "rejected", "{status:?}");
    let started = Instant::now();
    waiting.stop().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
}
