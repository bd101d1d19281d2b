//! What holds for all packets and for all bytes.

use drover_mqtt::{DecodeError, Decoder, Packet, Side, Version, encode, encoded_len};
use proptest::prelude::*;

use crate::generate::{Sample, any_sample, sample};

/// Reads everything `bytes` holds, as a connection would: packets up to an error or an incomplete rest.
fn read_all<'a>(decoder: &Decoder, mut bytes: &'a [u8]) -> (Vec<Packet<'a>>, Result<usize, DecodeError>) {
    let mut packets = Vec::new();
    loop {
        match decoder.decode(bytes) {
            Ok(Some((packet, taken))) => {
                packets.push(packet);
                bytes = &bytes[taken..];
            }
            Ok(None) => return (packets, Ok(bytes.len())),
            Err(error) => return (packets, Err(error)),
        }
    }
}

/// Packets one client may send in a row in one version.
fn stream() -> impl Strategy<Value = Vec<Sample>> {
    let from_client =
        |version| sample(version).prop_filter("packets of a client", |sample| sample.sender == Side::Client);
    prop_oneof![
        prop::collection::vec(from_client(Version::V311), 1..6),
        prop::collection::vec(from_client(Version::V5), 1..6),
    ]
}

fn decoders() -> impl Strategy<Value = Decoder> {
    (prop::sample::select(&[Side::Client, Side::Server][..]), prop::sample::select(&[Version::V311, Version::V5][..]))
        .prop_map(|(sender, version)| Decoder::new(sender, version))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_encoded_is_decoded_the_same(sample in any_sample()) {
        let bytes = sample.encoded();
        let (packet, taken) = sample.decoder().decode(&bytes)?.expect("complete");
        prop_assert_eq!(packet, sample.packet());
        prop_assert_eq!(taken, bytes.len());
        prop_assert_eq!(encoded_len(&packet, sample.version)?, bytes.len());
        prop_assert_eq!(sample.decoder().packet_len(&bytes)?, Some(bytes.len()));
    }

    #[test]
    fn every_prefix_of_a_packet_needs_more(sample in any_sample()) {
        let bytes = sample.encoded();
        for end in 0..bytes.len() {
            prop_assert_eq!(sample.decoder().decode(&bytes[..end]), Ok(None), "{} of {} bytes", end, bytes.len());
        }
    }

    #[test]
    fn a_packet_is_refused_one_byte_over_the_limit_and_before_its_body_is_there(sample in any_sample()) {
        let bytes = sample.encoded();
        let size = bytes.len() as u32;
        let at_limit = Decoder { packet_bytes_max: size, ..sample.decoder() };
        let below = Decoder { packet_bytes_max: size - 1, ..sample.decoder() };
        prop_assert!(at_limit.decode(&bytes)?.is_some());
        let refused = Err(DecodeError::PacketTooLarge { bytes: size, limit: size - 1 });
        let header_bytes = if size > 129 { 3 } else { 2 };
        prop_assert_eq!(below.decode(&bytes[..header_bytes]), refused);
    }

    #[test]
    fn bytes_split_anywhere_give_the_same_packets(samples in stream(), cut in any::<prop::sample::Index>()) {
        let bytes: Vec<u8> = samples.iter().flat_map(Sample::encoded).collect();
        let decoder = samples[0].decoder();
        let (whole, rest) = read_all(&decoder, &bytes);
        prop_assert_eq!(rest, Ok(0));
        prop_assert_eq!(&whole, &samples.iter().map(Sample::packet).collect::<Vec<_>>());
        let (mut first, rest) = read_all(&decoder, &bytes[..cut.index(bytes.len())]);
        let resume_at = cut.index(bytes.len()) - rest?;
        let (second, rest) = read_all(&decoder, &bytes[resume_at..]);
        first.extend(second);
        prop_assert_eq!(rest, Ok(0));
        prop_assert_eq!(first, whole);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(decoder in decoders(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (packets, rest) = read_all(&decoder, &bytes);
        prop_assert!(packets.len() <= bytes.len() / 2);
        if let Err(error) = rest {
            prop_assert!(error.reason_code().is_error());
            prop_assert!(!error.to_string().is_empty());
        }
    }

    /// What a mutated packet still says can be said again: decoded lists are valid to their end.
    #[test]
    fn a_mutated_packet_is_refused_or_survives_a_round_trip(
        sample in any_sample(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = sample.encoded();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(Some((packet, _))) = sample.decoder().decode(&bytes) {
            let version = if let Packet::Connect(connect) = packet { connect.version } else { sample.version };
            let mut again = Vec::new();
            encode(&packet, version, &mut again)?;
            prop_assert_eq!(sample.decoder().decode(&again)?.map(|(packet, _)| packet), Some(packet));
        }
    }
}
