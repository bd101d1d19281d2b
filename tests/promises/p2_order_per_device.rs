//! P2: a device's messages come out in the order it sent them.

use drover_sim::Broken;

#[test]
fn messages_of_a_device_keep_their_order() {
    for (seed, verdict) in super::sound() {
        assert_eq!(verdict.reordered.count, 0, "seed {seed}: {verdict}");
    }
}

#[test]
fn a_device_spread_over_partitions_is_caught() {
    let broken = Broken { scatter_devices: true, ..Broken::default() };
    let (seed, verdict) = super::caught(broken, |verdict| verdict.reordered.count > 0).expect("a seed reorders");
    println!("seed {seed} shows it: {verdict}");
}
