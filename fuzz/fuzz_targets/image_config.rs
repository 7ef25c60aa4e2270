//! What the container runtime says of an image, whose author may have written anything into its config: facts of bounded
//! size or an error (H10).

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/node-agent/src/image_config.rs"]
mod image_config;

fuzz_target!(|info: &str| {
    if let Ok(facts) = image_config::facts("image", "id", info) {
        let size = serde_json::to_vec(&facts).expect("facts can be written").len();
        // A byte of JSON text is at most six bytes of JSON.
        assert!(size < 2 << 20, "{size}");
    }
});
