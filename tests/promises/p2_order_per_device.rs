//! P2: a device's messages come out in the order it sent them.

use drover_sim::Broken;

#[test]
fn messages_of_a_device_keep_their_order() {
    super::sound("messages_of_a_device", |outcome| outcome.rule.reordered.count == 0);
}

#[test]
fn a_device_spread_over_partitions_is_caught() {
    super::caught(Broken { scatter_devices: true, ..Broken::default() }, |outcome| outcome.rule.reordered.count > 0);
}
