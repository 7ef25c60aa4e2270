//! What the container runtime reports about an image. The image's author may have written anything
//! into its config. The agent must get facts of bounded size or an error (H10).

#![no_main]

use libfuzzer_sys::fuzz_target;
use node_agent::image_input::image_facts;

fuzz_target!(|info: &str| {
    if let Ok(facts) = image_facts("image", "id", info) {
        let size = serde_json::to_vec(&facts).expect("facts can be written").len();
        // A byte of JSON text is at most six bytes of JSON.
        assert!(size < 2 << 20, "{size}");
    }
});
