//! Default limits of the public contract; each is configurable where it is enforced, and tested at and over.

/// Largest payload of one message, in bytes; leaves headroom below Kafka's default 1 MiB message limit.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Longest topic name or filter, in bytes.
pub const TOPIC_BYTES_MAX: usize = 4_096;
/// Most levels of a topic name or filter; a publisher tests each prefix against every peer's summary.
pub const TOPIC_LEVELS_MAX: usize = 32;
/// Most subscriptions of one client.
pub const FILTERS_PER_CLIENT_MAX: usize = 100;
/// Receive maximum: unacknowledged QoS 1 and 2 messages per client and direction; also the length of the repeat window.
pub const RECEIVE_MAXIMUM: u16 = 100;
/// Most messages waiting for one client.
pub const INBOX_MESSAGES_MAX: usize = 1_000;
/// Most bytes waiting for one client.
pub const INBOX_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Longest a persistent session outlives its connection, in seconds.
pub const SESSION_EXPIRY_SECONDS_MAX: u32 = 7 * 24 * 3600;
/// Longest device or client id, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// Longest SQL text of a rule, in bytes.
pub const SQL_BYTES_MAX: usize = 64 * 1024;
/// Most actions of one rule.
pub const ACTIONS_PER_RULE_MAX: usize = 10;
/// Most rows of one request of a webhook.
pub const BATCH_RECORDS_MAX: u32 = 500;
/// Most headers that an action names.
pub const HEADERS_PER_ACTION_MAX: usize = 32;
/// Shortest wait for a webhook's answer, in milliseconds.
pub const WEBHOOK_TIMEOUT_MS_MIN: u32 = 100;
/// Longest wait for a webhook's answer, in milliseconds.
pub const WEBHOOK_TIMEOUT_MS_MAX: u32 = 30_000;
/// Most rules of one tenant.
pub const RULES_PER_TENANT_MAX: usize = 1_000;
/// Most policies of one tenant, besides the built-in one.
pub const POLICIES_PER_TENANT_MAX: usize = 1_000;
/// Most partitions of a topic.
pub const PARTITIONS_MAX: u32 = 1_024;
/// Longest script of a function, in bytes. Two versions of script and examples make one record of the change feed.
/// The longest payload codec of device makers that we have seen has 235,000.
pub const FUNCTION_SOURCE_BYTES_MAX: usize = 256 * 1024;
/// Most examples of one function.
pub const EXAMPLES_PER_FUNCTION_MAX: usize = 100;
/// Most bytes of all examples of one function, as JSON.
pub const EXAMPLES_BYTES_MAX: usize = 64 * 1024;
/// Longest name of a routine of a script, in bytes.
pub const ROUTINE_BYTES_MAX: usize = 128;
/// Most functions of one tenant: with all their examples 32 MiB.
pub const FUNCTIONS_PER_TENANT_MAX: usize = 100;
/// Longest key of a label or attribute, and longest name of a type or of a field of one, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// Longest value of a label, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;
/// Most device types of one tenant.
pub const DEVICE_TYPES_PER_TENANT_MAX: usize = 1_000;
/// Most fields of one device type.
pub const FIELDS_PER_TYPE_MAX: usize = 200;
/// Most bytes of all texts of one device type: two versions of it make one record of the change feed.
pub const DEVICE_TYPE_BYTES_MAX: usize = 64 * 1024;
/// Longest description, and longest unit of a field, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 1_024;
/// Most device groups of one tenant.
pub const DEVICE_GROUPS_PER_TENANT_MAX: usize = 1_000;
/// Most groups that are one within the other, from the outermost to the innermost: who asks for the devices of a group reads
/// all that it is within.
pub const GROUP_DEPTH_MAX: usize = 8;
/// Most types that a group names.
pub const TYPES_PER_GROUP_MAX: usize = 64;
/// Most requirements of a selector, labels and expressions: each is looked at for each device.
pub const SELECTOR_REQUIREMENTS_MAX: usize = 64;
/// Most values of one requirement.
pub const SELECTOR_VALUES_MAX: usize = 64;
/// Longest selector in bytes, as a text and of all its keys and values.
pub const SELECTOR_BYTES_MAX: usize = 4_096;
/// Most certificate authorities of one tenant: each of the same subject may be asked about a certificate.
pub const CERTIFICATE_AUTHORITIES_PER_TENANT_MAX: usize = 32;
/// Largest certificate of an authority as PEM, in bytes: that of an RSA key of 16,384 bits has some 8,000.
pub const AUTHORITY_BYTES_MAX: usize = 16 * 1024;
/// Most certificates that a client shows, its own among them.
pub const CERTIFICATE_CHAIN_MAX: usize = 4;
/// Most bytes of these, as DER. They go with the question who the client is, and into the ticket it comes back by.
pub const CERTIFICATE_CHAIN_BYTES_MAX: usize = 16 * 1024;
/// Most `republish` hops of one message.
pub const REPUBLISH_HOPS_MAX: u32 = 5;
/// How long a fingerprint counts as "just seen", in milliseconds.
pub const REPEAT_WINDOW_MS: u64 = 5 * 60 * 1000;
/// Largest `state` of a shadow, in bytes as JSON without spaces; metadata does not count.
pub const SHADOW_STATE_BYTES_MAX: usize = 64 * 1024;
/// Most levels of objects and arrays below `desired` or `reported`.
pub const SHADOW_DEPTH_MAX: usize = 8;
/// Most values of a shadow's state, elements of arrays among them: each has a timestamp in every answer. No document
/// that fits AWS's 8 KB has more.
pub const SHADOW_VALUES_MAX: usize = 4_096;
/// Longest name of a shadow, in bytes.
pub const SHADOW_NAME_BYTES_MAX: usize = 64;
/// Most shadows of one device, deleted ones among them: their versions are kept.
pub const SHADOWS_PER_DEVICE_MAX: usize = 100;
/// Longest `clientToken` of a shadow request, in bytes.
pub const CLIENT_TOKEN_BYTES_MAX: usize = 64;
/// Largest payload the platform delivers in its own name, in bytes: a shadow's state and metadata before and after.
pub const DELIVERY_BYTES_MAX: usize = 512 * 1024;
/// Longest name of a command, in bytes.
pub const COMMAND_NAME_BYTES_MAX: usize = 128;
/// Longest idempotency key of a command, in bytes.
pub const COMMAND_KEY_BYTES_MAX: usize = 128;
/// Largest payload of a command, in bytes as JSON.
pub const COMMAND_PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Largest answer of a device to a command, in bytes.
pub const COMMAND_RESPONSE_BYTES_MAX: usize = 64 * 1024;
/// Shortest time a device has for a command, in milliseconds.
pub const COMMAND_TIMEOUT_MS_MIN: u64 = 1_000;
/// Longest time a device has for a command, in milliseconds: a persistent session outlives its connection for as long.
pub const COMMAND_TIMEOUT_MS_MAX: u64 = 7 * 24 * 3600 * 1_000;
/// Time a device has for a command that names none, in milliseconds.
pub const COMMAND_TIMEOUT_MS: u64 = 60 * 1_000;
/// Most commands of one device that are not finished.
pub const COMMANDS_OPEN_PER_DEVICE_MAX: usize = 100;
/// Most finished commands of one device that are kept: the newest.
pub const COMMANDS_FINISHED_PER_DEVICE_MAX: usize = 100;
/// How long a finished command is kept, in milliseconds.
pub const COMMANDS_FINISHED_MS_MAX: u64 = 30 * 24 * 3600 * 1_000;
