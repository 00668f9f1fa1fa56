//! Every scenario file.

use super::harness::scenario;

#[test]
fn every_scenario_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the folder").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= 10, "scenario files are missing");
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = files.iter().map(|file| (file, scope.spawn(|| scenario::run(file)))).collect();
        running.into_iter().filter_map(|(file, run)| run.join().is_err().then(|| file.display().to_string())).collect()
    });
    assert!(wrong.is_empty(), "these do not hold (see above): {wrong:?}");
}
