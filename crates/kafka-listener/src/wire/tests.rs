//! Every API in every version spoken, against the codec crate, and under mutation.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{self, RequestHeader};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;

use super::api::{Api, Decoded, decode};
use super::{Malformed, shape};

/// The body of a request with every array filled, as a client sends it in `version`.
fn sample(api: Api, version: i16) -> BytesMut {
    let mut body = BytesMut::new();
    super::samples::encode(api, version, &mut body);
    body
}

fn frame(api: Api, version: i16, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(api.number())
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("sample")));
    let header_version =
        messages::ApiKey::try_from(api.number()).expect("an api of Kafka").request_header_version(version);
    header.encode(&mut frame, header_version).expect("fits");
    frame.put_slice(body);
    frame
}

fn spoken() -> impl Iterator<Item = (Api, i16)> {
    Api::ALL.iter().flat_map(|api| {
        let (min, max) = api.versions();
        (min..=max).map(move |version| (*api, version))
    })
}

#[test]
fn the_shape_of_every_request_ends_exactly_where_the_codec_ends() {
    for (api, version) in spoken() {
        let body = sample(api, version);
        assert_eq!(shape::check(api, version, &body), Ok(0), "{api:?} version {version}");
        for cut in 0..body.len() {
            assert!(shape::check(api, version, &body[..cut]).is_err(), "{api:?} version {version} cut at {cut}");
        }
        let decoded = decode(frame(api, version, &body).freeze());
        let Ok(Decoded::Request(head, _)) = decoded else { panic!("{api:?} version {version}: {decoded:?}") };
        assert_eq!((head.api, head.version, head.correlation_id), (api, version, 7));
    }
}

#[test]
fn an_array_that_claims_more_than_the_frame_holds_is_refused_before_memory_is_reserved() {
    let body = [0x7f, 0xff, 0xff, 0xff];
    assert!(matches!(decode(frame(Api::Metadata, 1, &body).freeze()), Err(Malformed::Schema { .. })));
    let body = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(matches!(decode(frame(Api::Metadata, 9, &body).freeze()), Err(Malformed::Schema { .. })));
}

#[test]
fn more_elements_than_the_limit_are_refused_and_the_limit_passes() {
    let metadata = |count: usize| {
        let mut body = BytesMut::new();
        body.put_i32(count as i32);
        body.put_bytes(0, 2 * count);
        shape::check(Api::Metadata, 1, &body)
    };
    assert_eq!(metadata(shape::ELEMENTS_MAX), Ok(0));
    assert_eq!(metadata(shape::ELEMENTS_MAX + 1), Err(shape::ShapeError::TooManyElements));
}

#[test]
fn unknown_apis_and_versions_are_named_and_api_versions_is_answered_in_any_version() {
    let mut unknown = frame(Api::Fetch, 4, &[]);
    unknown[..2].copy_from_slice(&999i16.to_be_bytes());
    assert_eq!(decode(unknown.freeze()).err(), Some(Malformed::UnknownApi { key: 999 }));
    let mut newer = frame(Api::Fetch, 12, &[]);
    newer[2..4].copy_from_slice(&13i16.to_be_bytes());
    let refused = Malformed::UnknownVersion { api: "Fetch", version: 13, min: 4, max: 12 };
    assert_eq!(decode(newer.freeze()).err(), Some(refused));
    let mut versions = frame(Api::ApiVersions, 3, &[]);
    versions[2..4].copy_from_slice(&99i16.to_be_bytes());
    let decoded = decode(versions.freeze());
    assert!(matches!(decoded, Ok(Decoded::UnsupportedApiVersions { correlation_id: 7 })));
    assert_eq!(decode(Bytes::from_static(&[0; 7])).err(), Some(Malformed::Short { bytes: 7 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_bytes_make_the_request_decoder_panic(
        pick in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        tail in proptest::collection::vec(any::<u8>(), 0..32),
    ) {
        let all: Vec<_> = spoken().collect();
        let (api, version) = all[pick.index(all.len())];
        let mut bytes = frame(api, version, &sample(api, version));
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes.extend_from_slice(&tail);
        let length = bytes.len();
        if let Err(error) = decode(bytes.freeze()) {
            prop_assert!(length < 8 || !matches!(error, Malformed::Short { .. }), "{error}");
        }
    }
}
