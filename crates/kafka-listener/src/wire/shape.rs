//! The shape of every request, checked before the codec sees it.
//!
//! Protocol layer. The codec reserves memory for as many elements as an array *claims*, so 8 bytes could ask for
//! gigabytes; a claim passes only if its elements are really there, and a request has a bounded number of them.

use super::api::Api;

/// Most array elements of one request, all arrays together: 1,000 topics with 64 partitions in one fetch, and the
/// memory the codec reserves for them stays below 20 MB.
pub const ELEMENTS_MAX: usize = 100_000;

/// What is wrong with a request's bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("it ends {missing} bytes too early")]
    Truncated { missing: usize },
    #[error("length {length} is negative")]
    Negative { length: i32 },
    #[error("it has more than {ELEMENTS_MAX} array elements")]
    TooManyElements,
}

/// A field of a request and the versions that have it.
enum Field {
    All(Kind),
    /// From this version on.
    Since(i16, Kind),
    /// Up to this version, included.
    Until(i16, Kind),
}

enum Kind {
    /// That many bytes.
    Fixed(usize),
    /// A string, nullable or not: 2-byte or compact length.
    Text,
    /// Bytes, nullable or not: 4-byte or compact length.
    Blob,
    /// An array of structs.
    Structs(&'static [Field]),
    /// An array of values without fields.
    Scalars(&'static Kind),
}

use Field::{All, Since, Until};
use Kind::{Blob, Fixed, Scalars, Structs, Text};

/// The fields of a request, as Kafka's schema files list them.
fn fields(api: Api) -> &'static [Field] {
    match api {
        Api::ApiVersions => &[Since(3, Text), Since(3, Text)],
        Api::SaslHandshake => &[All(Text)],
        Api::SaslAuthenticate => &[All(Blob)],
        Api::Metadata => &[All(Structs(&[All(Text)])), Since(4, Fixed(1)), Since(8, Fixed(1)), Since(8, Fixed(1))],
        Api::DescribeCluster => &[All(Fixed(1)), Since(1, Fixed(1))],
        Api::ListOffsets => {
            const PARTITION: &[Field] = &[All(Fixed(4)), Since(4, Fixed(4)), All(Fixed(8))];
            &[All(Fixed(4)), Since(2, Fixed(1)), All(Structs(&[All(Text), All(Structs(PARTITION))]))]
        }
        Api::OffsetForLeaderEpoch => {
            const PARTITION: &[Field] = &[All(Fixed(12))];
            &[Since(3, Fixed(4)), All(Structs(&[All(Text), All(Structs(PARTITION))]))]
        }
        Api::Fetch => {
            const PARTITION: &[Field] = &[
                All(Fixed(4)),
                Since(9, Fixed(4)),
                All(Fixed(8)),
                Since(12, Fixed(4)),
                Since(5, Fixed(8)),
                All(Fixed(4)),
            ];
            const FORGOTTEN: &[Field] = &[All(Text), All(Scalars(&Fixed(4)))];
            &[
                All(Fixed(4 + 4 + 4 + 4 + 1)),
                Since(7, Fixed(4 + 4)),
                All(Structs(&[All(Text), All(Structs(PARTITION))])),
                Since(7, Structs(FORGOTTEN)),
                Since(11, Text),
            ]
        }
        Api::Produce => {
            const TOPIC: &[Field] = &[All(Text), All(Structs(&[All(Fixed(4)), All(Blob)]))];
            &[All(Text), All(Fixed(2 + 4)), All(Structs(TOPIC))]
        }
        Api::InitProducerId => &[All(Text), All(Fixed(4)), Since(3, Fixed(8 + 2))],
        Api::FindCoordinator => &[Until(3, Text), Since(1, Fixed(1)), Since(4, Scalars(&Text))],
        Api::JoinGroup => &[
            All(Text),
            All(Fixed(4)),
            Since(1, Fixed(4)),
            All(Text),
            Since(5, Text),
            All(Text),
            All(Structs(&[All(Text), All(Blob)])),
            Since(8, Text),
        ],
        Api::SyncGroup => &[
            All(Text),
            All(Fixed(4)),
            All(Text),
            Since(3, Text),
            Since(5, Text),
            Since(5, Text),
            All(Structs(&[All(Text), All(Blob)])),
        ],
        Api::Heartbeat => &[All(Text), All(Fixed(4)), All(Text), Since(3, Text)],
        Api::LeaveGroup => &[All(Text), Until(2, Text), Since(3, Structs(&[All(Text), All(Text), Since(5, Text)]))],
        Api::OffsetCommit => {
            const PARTITION: &[Field] = &[All(Fixed(4 + 8)), Since(6, Fixed(4)), All(Text)];
            &[
                All(Text),
                All(Fixed(4)),
                All(Text),
                Since(7, Text),
                Until(4, Fixed(8)),
                All(Structs(&[All(Text), All(Structs(PARTITION))])),
            ]
        }
        Api::OffsetFetch => {
            const TOPIC: &[Field] = &[All(Text), All(Scalars(&Fixed(4)))];
            &[
                Until(7, Text),
                Until(7, Structs(TOPIC)),
                Since(8, Structs(&[All(Text), All(Structs(TOPIC))])),
                Since(7, Fixed(1)),
            ]
        }
        Api::DescribeGroups => &[All(Scalars(&Text)), Since(3, Fixed(1))],
        Api::ListGroups => &[Since(4, Scalars(&Text)), Since(5, Scalars(&Text))],
        Api::DeleteGroups => &[All(Scalars(&Text))],
        Api::CreateTopics => {
            const ASSIGNMENT: &[Field] = &[All(Fixed(4)), All(Scalars(&Fixed(4)))];
            const CONFIG: &[Field] = &[All(Text), All(Text)];
            const TOPIC: &[Field] = &[All(Text), All(Fixed(4 + 2)), All(Structs(ASSIGNMENT)), All(Structs(CONFIG))];
            &[All(Structs(TOPIC)), All(Fixed(4 + 1))]
        }
        Api::DeleteTopics => &[All(Scalars(&Text)), All(Fixed(4))],
        Api::DescribeConfigs => {
            const RESOURCE: &[Field] = &[All(Fixed(1)), All(Text), All(Scalars(&Text))];
            &[All(Structs(RESOURCE)), All(Fixed(1)), Since(3, Fixed(1))]
        }
    }
}

/// Walks `body` along the shape of its request; the codec may decode what passes. Bytes left over, which Kafka
/// ignores too, are counted in the answer.
pub fn check(api: Api, version: i16, body: &[u8]) -> Result<usize, ShapeError> {
    let mut walk = Walk { rest: body, version, flexible: api.is_flexible(version), elements: 0 };
    walk.structure(fields(api))?;
    Ok(walk.rest.len())
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn structure(&mut self, fields: &[Field]) -> Result<(), ShapeError> {
        for field in fields {
            match field {
                All(kind) => self.value(kind)?,
                Since(first, kind) if *first <= self.version => self.value(kind)?,
                Until(last, kind) if self.version <= *last => self.value(kind)?,
                Since(..) | Until(..) => {}
            }
        }
        if self.flexible { self.tagged_fields() } else { Ok(()) }
    }

    fn value(&mut self, kind: &Kind) -> Result<(), ShapeError> {
        match kind {
            Fixed(bytes) => self.skip(*bytes),
            Text => {
                let length = self.length(2)?;
                self.skip(length)
            }
            Blob => {
                let length = self.length(4)?;
                self.skip(length)
            }
            Structs(fields) => self.array(|walk| walk.structure(fields)),
            Scalars(kind) => self.array(|walk| walk.value(kind)),
        }
    }

    fn array(&mut self, element: impl Fn(&mut Self) -> Result<(), ShapeError>) -> Result<(), ShapeError> {
        let length = self.length(4)?;
        self.elements = self.elements.saturating_add(length);
        if self.elements > ELEMENTS_MAX {
            return Err(ShapeError::TooManyElements);
        }
        (0..length).try_for_each(|_| element(self))
    }

    fn tagged_fields(&mut self) -> Result<(), ShapeError> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let bytes = self.varint()? as usize;
            self.skip(bytes)?;
        }
        Ok(())
    }

    /// A length of `wide` bytes, or a compact one; null counts as 0.
    fn length(&mut self, wide: usize) -> Result<usize, ShapeError> {
        if self.flexible {
            return Ok((self.varint()? as usize).saturating_sub(1));
        }
        let length = match wide {
            2 => i32::from(i16::from_be_bytes(self.take()?)),
            _ => i32::from_be_bytes(self.take()?),
        };
        match length {
            -1 => Ok(0),
            _ => usize::try_from(length).map_err(|_| ShapeError::Negative { length }),
        }
    }

    /// An unsigned varint of at most five bytes, read exactly as the codec reads it.
    fn varint(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ShapeError> {
        let (head, rest) =
            self.rest.split_first_chunk().ok_or_else(|| ShapeError::Truncated { missing: N - self.rest.len() })?;
        self.rest = rest;
        Ok(*head)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), ShapeError> {
        self.rest = self.rest.get(bytes..).ok_or_else(|| ShapeError::Truncated { missing: bytes - self.rest.len() })?;
        Ok(())
    }
}
