//! gRPC services and bus messages, generated from proto/, with conversions to drover-types.
