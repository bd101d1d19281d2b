//! What a shadow is and what a request makes of it; as AWS IoT has it.
//!
//! Domain layer, pure: no I/O and no clock. The same requests in the same order make the same documents.

mod answer;
mod asked;
mod batch;
pub mod command;
mod document;
mod forget;
mod key;
mod records;
mod rejection;
mod repeats;
mod request;

pub use asked::{Asked, Malformed};
pub use batch::{Answered, Batch, Tally};
pub use document::Shadow;
pub use forget::{Forget, Request, deletion_id, forget_request};
pub use key::ShadowKey;
pub use records::{PLATFORM, request};
pub use repeats::Repeats;
