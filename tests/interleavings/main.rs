/*!
The reconcilers against a simulated API server, with a fault at every place where one can be.

A test runs every scenario once undisturbed, and then once for each fault of its family: the process
ends after request i, for every i; event k is lost, for every k; and so on. All runs must come to
the same end (see [`oracle`]), and break no rule on the way (see [`monitor`]). Each test prints the
number of its runs.

Scheduler, kubelets, agents, garbage collectors and users are fakes (see [`actors`]). The API server
is a fake too, below kube's real client (see [`api`]); the reconcilers are the product's.

What would take too long for every change is sampled. `INTERLEAVINGS=all` runs everything, and
`INTERLEAVINGS_SEED` chooses another sample.
*/

#![forbid(unsafe_code)]
// A helper of a test that cannot go on ends the test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod actors;
mod api;
mod cases;
mod fault;
mod faults;
mod model;
mod monitor;
mod oracle;
mod process;
mod rng;
mod run;
mod scenario;
mod scenarios;
mod stories;
mod world;
