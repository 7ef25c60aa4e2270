//! Each case does what it counts. The files of the image are made in a directory.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::image::{self, COPIED, LARGE, LARGE_BYTES, READ, READ_FILES, SMALL_BYTES};

/// The files of an image of which `copied` small ones and one large one can be copied up.
fn place(copied: u32) -> (TempDir, Place) {
    let directory = tempfile::tempdir().unwrap();
    let place = Place {
        image: directory.path().to_owned(),
        work: directory.path().join("work"),
        program: "/bin/true".into(),
    };
    let many = [
        (READ, READ_FILES, SMALL_BYTES),
        (COPIED, copied, SMALL_BYTES),
        (LARGE, 1, LARGE_BYTES),
    ];
    for (name, count, bytes) in many {
        fs::create_dir_all(place.image.join(name)).unwrap();
        let content = image::content(bytes);
        for number in 0..count {
            fs::write(place.image.join(image::file(name, number)), &content).unwrap();
        }
    }
    (directory, place)
}

fn amount(operations: u32, rounds: u32) -> Amount {
    Amount {
        operations,
        repeats: 1,
        rounds,
    }
}

fn size(place: &Place, directory: &str, number: u32) -> u64 {
    let path = place.image.join(image::file(directory, number));
    fs::metadata(path).unwrap().len()
}

#[test]
fn each_case_does_its_operations_and_removes_what_it_made() {
    let (_directory, place) = place(3);
    for case in Case::ALL {
        let operations = if *case == Case::CopyUpLarge { 1 } else { 3 };
        let repeats = if matches!(case, Case::CopyUpSmall | Case::CopyUpLarge) {
            1
        } else {
            2
        };
        let amount = Amount {
            operations,
            repeats,
            rounds: 1,
        };
        let done = run(*case, &place, amount, 0).unwrap();
        assert_eq!(done.len(), repeats as usize, "{case:?}");
        for timed in done {
            assert_eq!(timed.operations, operations, "{case:?}");
            assert!(!timed.elapsed.is_zero(), "{case:?}");
        }
    }
    let left = fs::read_dir(&place.work).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["blocks"]);
    let blocks = fs::metadata(place.work.join("blocks")).unwrap();
    assert_eq!(blocks.len(), LARGE_BYTES as u64);
}

#[test]
fn a_round_writes_to_files_that_no_earlier_round_wrote_to() {
    let (_directory, place) = place(4);
    let small = SMALL_BYTES as u64;
    run(Case::CopyUpSmall, &place, amount(2, 2), 0).unwrap();
    let sizes = |place: &Place| {
        (0..4)
            .map(|number| size(place, COPIED, number))
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(&place), [small + 1, small + 1, small, small]);
    run(Case::CopyUpSmall, &place, amount(2, 2), 1).unwrap();
    assert_eq!(sizes(&place), [small + 1; 4]);
    let again = run(Case::CopyUpSmall, &place, amount(2, 2), 1).unwrap_err();
    assert!(matches!(again, Error::Changed { .. }), "{again}");
    let more = run(Case::CopyUpSmall, &place, amount(2, 2), 2).unwrap_err();
    assert!(matches!(more, Error::Round(2)), "{more}");
}

#[test]
fn a_large_copy_is_emptied() {
    let (_directory, place) = place(0);
    run(Case::CopyUpLarge, &place, amount(1, 1), 0).unwrap();
    assert_eq!(size(&place, LARGE, 0), 0);
}

#[test]
fn an_image_without_its_files_and_a_program_that_fails_are_errors() {
    let (_directory, mut place) = place(0);
    fs::remove_file(place.image.join(image::file(READ, 0))).unwrap();
    for case in [Case::Stat, Case::ReadSmall, Case::List] {
        run(case, &place, amount(1, 1), 0).unwrap_err();
    }
    place.program = "/bin/false".into();
    let failed = run(Case::Spawn, &place, amount(1, 1), 0).unwrap_err();
    assert!(matches!(failed, Error::Program { .. }), "{failed}");
}

#[test]
fn the_names_of_cases_are_different_and_the_images_suffice_for_their_rounds() {
    for case in Case::ALL {
        assert_eq!(Case::named(case.name()), Some(*case));
        let amount = case.amount();
        let available = match case {
            Case::CopyUpSmall => image::COPIED_FILES,
            Case::CopyUpLarge => image::LARGE_FILES,
            _ => continue,
        };
        assert_eq!(amount.repeats, 1, "{case:?}");
        assert!(amount.operations * amount.rounds <= available, "{case:?}");
    }
}
