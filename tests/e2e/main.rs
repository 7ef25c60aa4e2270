/*!
End-to-end tests on the cluster that `KUBECONFIG` names, with StoppableContainer
installed and the test images in its registry (`cargo xtask test` sees to both).

Each test has a namespace of its own; those that disturb the whole cluster run
alone. A failed test prints what is in its namespace; `E2E_KEEP=1` leaves it.
*/

// A test is one future; that it is large costs nothing.
#![allow(missing_docs, clippy::large_futures)]

mod admission {
    mod dry_run;
    mod excluded;
    mod generated;
    mod side_effects;
    mod templates;
}
mod availability;
mod durability {
    mod events;
    mod survival;
    mod trial;
    mod writing;
}
mod images {
    mod image_pin;
    mod pinned;
    mod retagged;
    mod variants;
}
mod injectors;
mod lifecycle {
    mod deletion;
    mod edits;
    mod ends;
    mod let_go;
    mod samples;
    mod stopped;
}
mod node {
    mod csi;
    pub(crate) mod faults;
    mod in_use;
}
mod parity;
mod security {
    mod agent_token;
    mod hostile;
    mod ownership;
    mod tenants;
}
mod storage {
    mod filesystem;
    mod full_disk;
    mod orphans;
    mod unmounted_disk;
    mod volumes;
}
mod support;
