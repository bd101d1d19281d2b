//! Content-Formats (RFC 7252 section 12.3) and the media types they stand for, as devices use them.

/// From the registry of CoAP Content-Formats.
const FORMATS: [(u16, &str); 11] = [
    (0, "text/plain; charset=utf-8"),
    (40, "application/link-format"),
    (41, "application/xml"),
    (42, "application/octet-stream"),
    (47, "application/exi"),
    (50, "application/json"),
    (60, "application/cbor"),
    (110, "application/senml+json"),
    (112, "application/senml+cbor"),
    (11_542, "application/vnd.oma.lwm2m+tlv"),
    (11_543, "application/vnd.oma.lwm2m+json"),
];

/// Of links, as `/.well-known/core` has them.
pub const LINKS: u16 = 40;

/// The media type of a format that is known here.
pub fn media_type(format: u16) -> Option<&'static str> {
    FORMATS.iter().find(|(number, _)| *number == format).map(|(_, name)| *name)
}

/// The format of a media type, if it has one that is known here.
pub fn format(media_type: &str) -> Option<u16> {
    let known = |name: &str| name.eq_ignore_ascii_case(media_type);
    let plain = media_type.eq_ignore_ascii_case("text/plain");
    FORMATS.iter().find(|(_, name)| known(name)).map(|(number, _)| *number).or(plain.then_some(0))
}
