//! The cases, in a plain pod and a StoppableContainer in turn.

use std::time::Duration;

use anyhow::Result;
use io_load::Case;
use io_load::image::MOST_ROUNDS;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::measured::Recorder;
use super::{Pair, exec};

/// Measures all cases in each round. Round 0 fills caches and is not counted.
pub(super) async fn measure(
    pods: &Api<Pod>,
    pair: &Pair,
    recorder: &mut Recorder,
    rounds: u32,
    limit: Duration,
) -> Result<()> {
    for round in 0..=rounds {
        eprintln!("{} layers, round {round} of {rounds}", pair.layers);
        for (place, case) in (0..).zip(Case::ALL) {
            let Some(files) = files(*case, round) else {
                continue;
            };
            let run = |pod| exec::run(pods, pod, *case, files, limit);
            // The order changes, so that neither always follows the other.
            let plain_is_first = (round + place).is_multiple_of(2);
            let (plain, ours) = if plain_is_first {
                let plain = run(&pair.plain).await?;
                (plain, run(&pair.ours).await?)
            } else {
                let ours = run(&pair.ours).await?;
                (run(&pair.plain).await?, ours)
            };
            if round > 0 {
                recorder.add(*case, pair.layers, plain, ours);
            }
        }
    }
    Ok(())
}

/// The files of the image that a case uses in a round, as the round that the program knows. If the
/// image has files for only some rounds, round 0 is left out, and so are the last ones.
fn files(case: Case, round: u32) -> Option<u32> {
    let rounds = case.amount().rounds;
    if rounds == MOST_ROUNDS {
        return Some(round);
    }
    round.checked_sub(1).filter(|files| *files < rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_of_the_image_is_used_once_and_the_first_round_of_few_is_counted() {
        let used = |case| -> Vec<_> {
            (0..MOST_ROUNDS)
                .filter_map(|round| files(case, round).map(|files| (round, files)))
                .collect()
        };
        let large = used(Case::CopyUpLarge);
        let expected: Vec<_> = (0..Case::CopyUpLarge.amount().rounds)
            .map(|files| (files + 1, files))
            .collect();
        assert_eq!(large, expected);
        assert_eq!(used(Case::CopyUpSmall).len(), MOST_ROUNDS as usize);
    }
}
