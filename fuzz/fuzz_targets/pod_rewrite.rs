//! Pods that the API server takes, generated with the fuzzer's bytes as seed: each is rewritten
//! once, passes the final validation, and a second call changes nothing (I3, I4, H20, H21).

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use webhook_fixtures::{Harness, check_rewrite, pod_spec};

struct World {
    pods: BoxedStrategy<Value>,
    harness: RefCell<Harness>,
    runtime: Runtime,
}

thread_local! {
    static WORLD: World = World {
        pods: pod_spec().boxed(),
        harness: RefCell::new(Harness::new()),
        runtime: Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime"),
    };
}

fuzz_target!(|bytes: &[u8]| {
    let mut seed = [0; 32];
    for (at, byte) in bytes.iter().enumerate() {
        seed[at % 32] ^= byte;
    }
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    WORLD.with(|world| {
        let tree = world.pods.new_tree(&mut runner).expect("a pod");
        let mut harness = world.harness.borrow_mut();
        world
            .runtime
            .block_on(check_rewrite(&mut harness, &tree.current()));
    });
});
