//! P2: a device's messages come out in the order it sent them.

#[test]
fn messages_of_a_device_keep_their_order() {
    for (seed, verdict) in super::sound() {
        assert_eq!(verdict.reordered.count, 0, "seed {seed}: {verdict}");
    }
}

#[test]
fn an_output_that_overtakes_is_caught() {
    let mut books = drover_load::ledger::Ledger::default();
    let sent: Vec<u64> = (0..3).map(|_| books.sent("dev")).collect();
    sent.iter().for_each(|number| books.acknowledged("dev", *number));
    [0, 2, 1].into_iter().for_each(|number| books.received("out/dev", "dev", number));
    assert_eq!(books.check().reordered.count, 1, "{}", books.check());
}
